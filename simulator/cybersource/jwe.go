package cybersource

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"time"
)

// sealJWE encrypts a text in compact form as message-level encryption has it: RSA-OAEP-256 around a
// one-time key, A256GCM around the text (RFC 7516).
func sealJWE(to *rsa.PublicKey, kid string, text []byte, now time.Time) (string, error) {
	if to == nil {
		return "", errors.New("no public key to encrypt to")
	}
	header, err := json.Marshal(object{"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": kid, "iat": now.UnixMilli()})
	if err != nil {
		return "", fmt.Errorf("encrypt: %w", err)
	}
	key, nonce := make([]byte, 32), make([]byte, 12)
	_, _ = rand.Read(key)   // documented never to return an error
	_, _ = rand.Read(nonce) // the same
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, to, key, nil)
	if err != nil {
		return "", fmt.Errorf("encrypt: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", fmt.Errorf("encrypt: %w", err)
	}
	sealer, err := cipher.NewGCM(block)
	if err != nil {
		return "", fmt.Errorf("encrypt: %w", err)
	}
	e := base64.RawURLEncoding.EncodeToString
	protected := e(header)
	sealed := sealer.Seal(nil, nonce, text, []byte(protected))
	tag := len(sealed) - sealer.Overhead()
	return protected + "." + e(wrapped) + "." + e(nonce) + "." + e(sealed[:tag]) + "." + e(sealed[tag:]), nil
}

// parsePublicKey reads the pub of a stored key: a certificate or a public key, in PEM or its inside in
// one line.
func parsePublicKey(text string) (*rsa.PublicKey, error) {
	der, err := base64.StdEncoding.DecodeString(text)
	if block, _ := pem.Decode([]byte(text)); block != nil {
		der, err = block.Bytes, nil
	}
	if err != nil {
		return nil, errors.New("is neither PEM nor base64")
	}
	if certificate, err := x509.ParseCertificate(der); err == nil {
		if key, ok := certificate.PublicKey.(*rsa.PublicKey); ok {
			return key, nil
		}
	}
	if parsed, err := x509.ParsePKIXPublicKey(der); err == nil {
		if key, ok := parsed.(*rsa.PublicKey); ok {
			return key, nil
		}
	}
	return nil, errors.New("is not an RSA key")
}
