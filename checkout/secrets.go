package checkout

import (
	"crypto/hkdf"
	"crypto/sha256"
	"time"
)

// Secrets returns 32 bytes for a purpose of the caller's, derived from each
// accepted key, the newest first: what is made with the first is checked with
// all. Every process with the same key files gets the same, and rotating the
// link keys rotates these too. They tell nothing about the keys, nor about each
// other.
func (k *KeyRing) Secrets(purpose string) [][]byte {
	var secrets [][]byte
	pair := k.pair.Load()
	for _, key := range []*signingKey{pair.current, pair.previous} {
		if !key.accepted(time.Now()) {
			continue
		}
		secret, err := hkdf.Key(sha256.New, key.private.Seed(), nil, "paythread "+purpose, sha256.Size)
		if err != nil {
			panic("checkout: " + err.Error()) // only for lengths that are not ours
		}
		secrets = append(secrets, secret)
	}
	return secrets
}
