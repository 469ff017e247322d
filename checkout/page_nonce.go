package checkout

import (
	"crypto/hmac"
	"crypto/sha256"
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

// Nonces makes and checks the values that prove that a call was made from one
// of our own pages. They are computed, not stored: every instance with the same
// secrets agrees on them. A nonce may be used many times within its life, so a
// call that it allows must be harmless when repeated.
type Nonces struct{ secrets func() [][]byte }

// minNonceSecret is the fewest bytes that a secret may have.
const minNonceSecret = 32

// NewNonces takes a function that returns the secrets, each of at least 32
// bytes and for nothing else: nonces are made with the first and checked with
// all, so that pages outlive a rotation. It is asked each time, and now to see
// that it has one. KeyRing.Secrets is such a source.
func NewNonces(secrets func() [][]byte) (*Nonces, error) {
	if secrets == nil {
		return nil, errors.New("nonces need secrets")
	}
	now := secrets()
	if len(now) == 0 {
		return nil, errors.New("nonces need a secret")
	}
	for _, secret := range now {
		if len(secret) < minNonceSecret {
			return nil, errors.New("a secret for nonces needs at least 32 bytes")
		}
	}
	return &Nonces{secrets: secrets}, nil
}

// Mint returns a nonce that Check takes for this purpose and payment request
// until NonceLife after now.
func (n *Nonces) Mint(purpose, requestID string, now time.Time) string {
	expires := now.Add(NonceLife).Unix()
	raw := binary.BigEndian.AppendUint64(nil, uint64(expires))
	return base64.RawURLEncoding.EncodeToString(append(raw, nonceMAC(n.secrets()[0], purpose, requestID, raw)...))
}

// Check tells whether Mint made the nonce for this purpose and payment
// request, with a secret that is still accepted, not longer than NonceLife ago.
func (n *Nonces) Check(purpose, requestID, nonce string, now time.Time) bool {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(nonce)
	if err != nil || len(raw) != 8+sha256.Size {
		return false
	}
	for _, secret := range n.secrets() {
		if hmac.Equal(raw[8:], nonceMAC(secret, purpose, requestID, raw[:8])) {
			return now.Unix() < int64(binary.BigEndian.Uint64(raw[:8]))
		}
	}
	return false
}

// nonceMAC is over fields with their lengths, so that no two sets of them read
// the same.
func nonceMAC(secret []byte, purpose, requestID string, expires []byte) []byte {
	h := hmac.New(sha256.New, secret)
	fmt.Fprintf(h, "%d:%s%d:%s", len(purpose), purpose, len(requestID), requestID)
	h.Write(expires)
	return h.Sum(nil)
}
