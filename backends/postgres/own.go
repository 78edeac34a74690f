package postgres

// Tabard's own schema: migrations/postgres/provision. Keys come in lower case.
const (
	sqlAlias = `SELECT target FROM aliases WHERE lower(address) = $1 ORDER BY id`
	// A label answers only where no user has its name, enabled or not.
	sqlCredentials = `SELECT name, password FROM users WHERE lower(name) = $1 AND enabled AND password <> ''
UNION ALL SELECT username, password FROM relay_credentials
WHERE lower(label) = $1 AND NOT EXISTS (SELECT FROM users WHERE lower(name) = $1)`
	sqlUserInfo    = `SELECT uid, gid, home FROM users WHERE lower(name) = $1 AND enabled`
	sqlRelayHost   = `SELECT url FROM relays WHERE lower(match) = $1 ORDER BY priority, weight DESC, id`
	sqlAddrName    = `SELECT hostname FROM hostnames WHERE lower(address) IN ($1, btrim($1, '[]')) ORDER BY address LIMIT 1`
	sqlNetAddr     = `SELECT cidr FROM networks WHERE lower(cidr) IN ($1, btrim($1, '[]')) LIMIT 1`
	sqlCert        = `SELECT chain, key FROM certificates WHERE lower(name) = $1 ORDER BY id`
	sqlDKIM        = `SELECT selector, key FROM dkim_keys WHERE lower(domain) = $1 ORDER BY selector`
	sqlConfig      = `SELECT body FROM configs WHERE lower(name) = $1 ORDER BY version DESC LIMIT 1`
	sqlDomain      = `SELECT name FROM domains WHERE lower(name) = $1`
	sqlMailAddr    = `SELECT address FROM addresses WHERE lower(address) = $1`
	sqlMailAddrMap = `SELECT address FROM senders WHERE lower("user") = $1 ORDER BY id`
	sqlSource      = `SELECT address FROM sources WHERE lower(address) = $1`
	sqlString      = `SELECT name FROM users WHERE lower(name) = $1 AND enabled`
	sqlCA          = `SELECT pem FROM authorities WHERE lower(name) = $1`
	sqlCertAuth    = `SELECT "user" FROM client_identities WHERE lower(identity) = $1`
	sqlTLSPolicy   = `SELECT policy FROM tls_policies WHERE lower(domain) = $1`

	sqlSources   = `SELECT address FROM sources ORDER BY address`
	sqlRelays    = `SELECT url FROM relays WHERE match = '*' ORDER BY priority, weight DESC, id`
	sqlNetworks  = `SELECT cidr FROM networks ORDER BY cidr`
	sqlDomains   = `SELECT name FROM domains ORDER BY name`
	sqlAddresses = `SELECT address FROM addresses ORDER BY address`

	sqlDomainWildcards = `SELECT name FROM domains WHERE strpos(name, '*') > 0`
	sqlAddrWildcards   = `SELECT address FROM addresses WHERE strpos(address, '*') > 0`
)
