/*
 * Two things of OpenSMTPD 6.8 as Debian 12 has it, mended from outside:
 *
 * It was written for OpenSSL 1.1, and Debian builds it with 3. It marks the
 * public key of a certificate, so that signing is left to the process with the
 * private key. EVP_PKEY_get1_RSA and EVP_PKEY_get1_EC_KEY now return a copy, the
 * mark is on the copy, and each handshake in which it has to sign fails with
 * "missing private key" (its issues 1171 and 1239; later versions are in order).
 * So the key that it gets is one made of that copy.
 *
 * It listens with a backlog of 5, which stalls bursts of connections.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stddef.h>

enum { RSA_KEY = 6, EC_KEY = 408, BACKLOG = 1024 };

void *EVP_PKEY_new(void);
void EVP_PKEY_free(void *);
int EVP_PKEY_get_base_id(const void *);
void *EVP_PKEY_get1_RSA(void *);
int EVP_PKEY_set1_RSA(void *, void *);
void RSA_free(void *);
void *EVP_PKEY_get1_EC_KEY(void *);
int EVP_PKEY_set1_EC_KEY(void *, void *);
void EC_KEY_free(void *);

static int copy_key(void *to, void *from)
{
	void *key;
	int ok = 0;

	switch (EVP_PKEY_get_base_id(from)) {
	case RSA_KEY:
		key = EVP_PKEY_get1_RSA(from);
		ok = key != NULL && EVP_PKEY_set1_RSA(to, key);
		RSA_free(key);
		break;
	case EC_KEY:
		key = EVP_PKEY_get1_EC_KEY(from);
		ok = key != NULL && EVP_PKEY_set1_EC_KEY(to, key);
		EC_KEY_free(key);
		break;
	}
	return ok;
}

void *X509_get_pubkey(void *certificate)
{
	void *(*real)(void *) = (void *(*)(void *))dlsym(RTLD_NEXT, "X509_get_pubkey");
	void *key = real(certificate), *copy;

	if (key == NULL || (copy = EVP_PKEY_new()) == NULL)
		return key;
	if (!copy_key(copy, key)) {
		EVP_PKEY_free(copy);
		return key;
	}
	EVP_PKEY_free(key);
	return copy;
}

int listen(int fd, int backlog)
{
	int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "listen");

	return real(fd, backlog < BACKLOG ? BACKLOG : backlog);
}
