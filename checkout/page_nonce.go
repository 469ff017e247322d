package checkout

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"
)

// NonceLife is how long a page may be left open before its buttons are refused
// and the link has to be opened again. It is a link's own life.
const NonceLife = 24 * time.Hour

// Purposes of nonces: each page's nonce is refused by the other's calls.
const (
	NoncePay     = "pay"     // the pay page's calls
	NonceReceipt = "receipt" // the receipt page's one
)

// minNonceSecret is the fewest bytes of secret that Nonces takes.
const minNonceSecret = 32

// Nonces makes and checks the values that prove that a call was made from one
// of our own pages. They are computed, not stored: every instance with the same
// secret agrees on them. A nonce may be used many times within its life, so a
// call that it allows must be harmless when repeated.
type Nonces struct{ key []byte }

// NewNonces derives the key from a secret of at least 32 bytes that all
// instances share. The secret may have other uses: the key is of no use there.
func NewNonces(secret []byte) (*Nonces, error) {
	if len(secret) < minNonceSecret {
		return nil, errors.New("the secret for nonces needs at least 32 bytes")
	}
	key, err := hkdf.Key(sha256.New, secret, nil, "paythread page nonce v1", sha256.Size)
	if err != nil {
		return nil, fmt.Errorf("derive nonce key: %w", err)
	}
	return &Nonces{key: key}, nil
}

// Mint returns a nonce that Check takes for this purpose and payment request
// until NonceLife after now.
func (n *Nonces) Mint(purpose, requestID string, now time.Time) string {
	expires := now.Add(NonceLife).Unix()
	raw := binary.BigEndian.AppendUint64(nil, uint64(expires))
	return base64.RawURLEncoding.EncodeToString(append(raw, n.mac(purpose, requestID, raw)...))
}

// Check tells whether Mint made the nonce for this purpose and payment
// request, not longer than NonceLife ago.
func (n *Nonces) Check(purpose, requestID, nonce string, now time.Time) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(raw) != 8+sha256.Size {
		return false
	}
	if subtle.ConstantTimeCompare(raw[8:], n.mac(purpose, requestID, raw[:8])) != 1 {
		return false
	}
	return now.Unix() < int64(binary.BigEndian.Uint64(raw[:8]))
}

// mac is over fields with their lengths, so that no two sets of them read the same.
func (n *Nonces) mac(purpose, requestID string, expires []byte) []byte {
	h := hmac.New(sha256.New, n.key)
	fmt.Fprintf(h, "%d:%s%d:%s", len(purpose), purpose, len(requestID), requestID)
	h.Write(expires)
	return h.Sum(nil)
}
