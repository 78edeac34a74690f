/*
 * Dovecot has the directory of its modules compiled in, and its LMTP server
 * demands one of them. This finds them in the unpacked package.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLACE "/usr/lib/dovecot/"

static const char *moved(const char *path, char *to, size_t size)
{
	const char *root = getenv("TABARD_DOVECOT_ROOT");

	if (path == NULL || root == NULL || strncmp(path, PLACE, strlen(PLACE)) != 0)
		return path;
	if (snprintf(to, size, "%s%s", root, path) >= (int)size)
		return path;
	return to;
}

DIR *opendir(const char *name)
{
	DIR *(*real)(const char *) = (DIR *(*)(const char *))dlsym(RTLD_NEXT, "opendir");
	char to[4096];

	return real(moved(name, to, sizeof(to)));
}

void *dlopen(const char *name, int flags)
{
	void *(*real)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");
	char to[4096];

	return real(moved(name, to, sizeof(to)), flags);
}
