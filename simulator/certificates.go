package simulator

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// The files that LocalCertificate keeps in its directory.
const (
	AuthorityFile    = "ca.pem"     // for those who are to trust the server
	authorityKeyFile = "ca-key.pem" // stays where it is
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	serverLife    = 365 * 24 * time.Hour // browsers take no longer one
)

// LocalCertificate returns a server's certificate for the hosts, which may be names or addresses, signed
// by a certificate authority that lies in dir and is made there if it is not. The directory is made, too.
// Whoever is to trust the server trusts dir/ca.pem; it stays the same from one start to the next.
func LocalCertificate(dir string, now time.Time, hosts ...string) (tls.Certificate, error) {
	if len(hosts) == 0 {
		return tls.Certificate{}, errors.New("simulator: a certificate needs a host")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return tls.Certificate{}, fmt.Errorf("simulator: %w", err)
	}
	authority, err := loadAuthority(dir)
	if errors.Is(err, fs.ErrNotExist) {
		authority, err = makeAuthority(dir, now)
	}
	if err != nil {
		return tls.Certificate{}, err
	}
	if now.After(authority.Leaf.NotAfter) {
		return tls.Certificate{}, fmt.Errorf("simulator: the certificate authority in %s has expired: remove it, and a new one is made", dir)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: hosts[0]},
		NotBefore:   now.Add(-time.Hour),
		NotAfter:    now.Add(serverLife),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, host)
		}
	}
	return signCertificate(template, &authority)
}

// loadAuthority reads what makeAuthority wrote. Both files or none must be there.
func loadAuthority(dir string) (tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, AuthorityFile), filepath.Join(dir, authorityKeyFile))
	if err != nil {
		return cert, fmt.Errorf("simulator: certificate authority: %w", err)
	}
	return cert, nil
}

func makeAuthority(dir string, now time.Time) (tls.Certificate, error) {
	authority, err := signCertificate(&x509.Certificate{
		Subject:               pkix.Name{CommonName: "Simulator's own, trusted by nobody else"},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}, nil)
	if err != nil {
		return tls.Certificate{}, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(authority.PrivateKey)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("simulator: %w", err)
	}
	// The key first: an authority without its key would be of no use, and stand in the way.
	for _, file := range []struct {
		name, kind string
		der        []byte
		mode       fs.FileMode
	}{
		{authorityKeyFile, "PRIVATE KEY", key, 0o600},
		{AuthorityFile, "CERTIFICATE", authority.Certificate[0], 0o644},
	} {
		text := pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.der})
		if err := os.WriteFile(filepath.Join(dir, file.name), text, file.mode); err != nil {
			return tls.Certificate{}, fmt.Errorf("simulator: %w", err)
		}
	}
	return authority, nil
}

// signCertificate makes a key and a certificate for it, signed by the authority, or by itself.
func signCertificate(template *x509.Certificate, authority *tls.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("simulator: %w", err)
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return tls.Certificate{}, fmt.Errorf("simulator: %w", err)
	}
	made := tls.Certificate{PrivateKey: key}
	parent, signer := template, any(key)
	if authority != nil {
		parent, signer = authority.Leaf, authority.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("simulator: %w", err)
	}
	made.Certificate = [][]byte{der}
	if authority != nil {
		made.Certificate = append(made.Certificate, authority.Certificate[0])
	}
	if made.Leaf, err = x509.ParseCertificate(der); err != nil {
		return tls.Certificate{}, fmt.Errorf("simulator: %w", err)
	}
	return made, nil
}
