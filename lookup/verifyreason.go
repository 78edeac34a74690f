package lookup

// The reasons of a failed verdict, for both directions. They are a public
// vocabulary (docs/relay.md): Received, logs, rules and metrics print them as
// they are. When several apply, the verdict names one of them, for the same
// chain always the same one.
const (
	ReasonMalformed      = "malformed"         // a certificate cannot be read, a name in it holds control characters, or it has an unknown critical extension
	ReasonChainTooLong   = "chain-too-long"    // more, or larger, certificates than are looked at
	ReasonTooManyNames   = "too-many-names"    // more names in the certificate than are looked at
	ReasonUnsupportedKey = "unsupported-key"   // a kind or curve of key that is not known here, or an RSA key above 8192 bits
	ReasonWeakKey        = "weak-key"          // an RSA key below 2048 bits
	ReasonNotYetValid    = "not-yet-valid"     // the certificate, or an issuer's, becomes valid later
	ReasonExpired        = "expired"           // the certificate, or an issuer's, has expired
	ReasonSelfSigned     = "self-signed"       // the certificate is its own issuer and no trust anchor
	ReasonWeakSignature  = "weak-signature"    // signed with MD5 or SHA-1
	ReasonAuthority      = "unknown-authority" // no path to a trust anchor by issuers that may issue
	ReasonUsage          = "wrong-usage"       // key usage or extended key usage of the certificate, or an issuer's, forbids this use
	ReasonNameConstraint = "name-constraint"   // an issuer may not sign for a name in the certificate (RFC 5280 section 4.2.1.10)
	ReasonNoName         = "no-san"            // no subjectAltName of the kind asked for; the common name does not count (RFC 6125 section 6.4.4)
	ReasonWrongName      = "wrong-name"        // for other names than the one asked for
	ReasonRevoked        = "revoked"           // in the issuer's CRL
	ReasonCRLInvalid     = "crl-invalid"       // the CRL in the issuer's name is not signed by the issuer
	ReasonCRLExpired     = "crl-expired"       // the issuer's CRL should have been replaced by now
)

// Reasons returns every reason that a failed verdict can have, the graver ones
// first.
func Reasons() []string {
	return []string{
		ReasonMalformed, ReasonChainTooLong, ReasonTooManyNames, ReasonUnsupportedKey, ReasonWeakKey,
		ReasonNotYetValid, ReasonExpired, ReasonSelfSigned, ReasonWeakSignature, ReasonAuthority, ReasonUsage,
		ReasonNameConstraint, ReasonNoName, ReasonWrongName, ReasonRevoked, ReasonCRLInvalid, ReasonCRLExpired,
	}
}
