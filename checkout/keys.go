package checkout

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// PreviousKeyLife is how long the previous key is accepted after it was
// retired. Links live LinkLife, so twice that also covers processes that read
// the new key late.
const PreviousKeyLife = 48 * time.Hour

// The names that Rotate uses in its folder.
const (
	CurrentKeyFile  = "current.jwk"
	PreviousKeyFile = "previous.jwk"
)

// ErrRotatedTooSoon is returned by Rotate while links signed with the previous
// key can still be alive: a further rotation would end them.
var ErrRotatedTooSoon = errors.New("the previous key was retired less than 24 hours ago, and links signed with it may be in use; remove its file first if it is to be given up at once")

// keyFile is a private key as a JSON Web Key of RFC 8037. RetiredAt is a
// member of our own, which the RFC lets readers ignore: the time lies in the
// file because a mounted secret's modification time says nothing.
type keyFile struct {
	KeyType   string     `json:"kty"`
	Curve     string     `json:"crv"`
	X         string     `json:"x"`
	D         string     `json:"d"`
	KeyID     string     `json:"kid"`
	Use       string     `json:"use"`
	Algorithm string     `json:"alg"`
	RetiredAt *time.Time `json:"retired_at,omitempty"`
}

// signingKey is a key that was read and checked.
type signingKey struct {
	id        string
	private   ed25519.PrivateKey
	retiredAt time.Time // zero for the current key
}

func (k *signingKey) public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

// keyPair is what a KeyRing swaps as one.
type keyPair struct {
	current  *signingKey
	previous *signingKey // nil if there is none
	problems []string
	gone     map[string]time.Time // keys that were taken away too soon, until no link of theirs can be alive
}

// KeyRing holds the key that signs links and the one before it. It is safe for
// concurrent use, also while it is reloaded.
type KeyRing struct {
	currentPath, previousPath string
	pair                      atomic.Pointer[keyPair]
	lookedAgain               atomic.Int64 // unix seconds: when a key that is not known made us read the files
}

// LoadKeys reads the current key and, unless previous is empty, the key before
// it. A previous file that is not there is the state before the first rotation
// and no error. A previous key must say when it was retired.
func LoadKeys(current, previous string) (*KeyRing, error) {
	k := &KeyRing{currentPath: current, previousPath: previous}
	if err := k.Reload(); err != nil {
		return nil, err
	}
	return k, nil
}

// Reload reads the files again and swaps both keys at once. After an error the
// keys stay as they were.
func (k *KeyRing) Reload() error {
	pair := &keyPair{}
	var err error
	var problem string
	if pair.current, problem, err = readKey(k.currentPath); err != nil {
		return fmt.Errorf("current link key: %w", err)
	}
	if !pair.current.retiredAt.IsZero() {
		return fmt.Errorf("current link key: %s has been retired (it has a retired_at)", k.currentPath)
	}
	pair.note(problem)
	if k.previousPath != "" {
		previous, problem, err := readKey(k.previousPath)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return fmt.Errorf("previous link key: %w", err)
		case previous.id == pair.current.id:
			// A rotation was cut off after its first step: nothing has changed yet.
			pair.note(k.previousPath + " holds the current key: a rotation was cut off, run it again")
		case previous.retiredAt.IsZero():
			return fmt.Errorf("previous link key: %s lacks \"retired_at\", the time at which it was replaced (RFC 3339)", k.previousPath)
		default:
			pair.note(problem)
			pair.previous = previous
		}
	}
	pair.mourn(k.pair.Load(), time.Now())
	k.pair.Store(pair)
	return nil
}

// mourn notes which keys are accepted no longer although links that they signed
// may be in use: somebody took a file away, or wrote a new key over the current
// one without keeping it.
func (p *keyPair) mourn(before *keyPair, now time.Time) {
	if before == nil {
		return
	}
	if p.gone = maps.Clone(before.gone); p.gone == nil {
		p.gone = map[string]time.Time{}
	}
	p.gone[before.current.id] = now.Add(LinkLife) // it signed until a moment ago
	if b := before.previous; b != nil {
		p.gone[b.id] = b.retiredAt.Add(LinkLife)
	}
	for id, until := range p.gone {
		switch {
		case !now.Before(until), id == p.current.id, p.previous != nil && id == p.previous.id:
			delete(p.gone, id)
		default:
			p.note(fmt.Sprintf("key %s is gone, and links that it signed may be in use until %s: their pages have to be opened again from the message; put its file back, unless it was given up on purpose",
				id, until.UTC().Format(time.RFC3339)))
		}
	}
	slices.Sort(p.problems)
}

func (p *keyPair) note(problem string) {
	if problem != "" {
		p.problems = append(p.problems, problem)
	}
}

// Problems returns sentences about the files as they were last read: what is
// not wrong enough to stop, but should be mended. They hold no key.
func (k *KeyRing) Problems() []string { return k.pair.Load().problems }

// KeyID returns the id of the key that signs new links.
func (k *KeyRing) KeyID() string { return k.pair.Load().current.id }

// JWKS returns the public keys as a JSON Web Key Set: the current one, and the
// previous one while it is accepted.
func (k *KeyRing) JWKS() []byte { return k.jwks(time.Now()) }

func (k *KeyRing) jwks(now time.Time) []byte {
	type publicKey struct {
		KeyType   string `json:"kty"`
		Curve     string `json:"crv"`
		X         string `json:"x"`
		KeyID     string `json:"kid"`
		Use       string `json:"use"`
		Algorithm string `json:"alg"`
	}
	set := struct {
		Keys []publicKey `json:"keys"`
	}{}
	pair := k.pair.Load()
	for _, key := range []*signingKey{pair.current, pair.previous} {
		if key.accepted(now) {
			set.Keys = append(set.Keys, publicKey{"OKP", "Ed25519", encode(key.public()), key.id, "sig", "EdDSA"})
		}
	}
	body, err := json.Marshal(set)
	if err != nil {
		panic("checkout: " + err.Error()) // strings always marshal
	}
	return body
}

// find returns the accepted public key with that id. One that is not known may
// be newer than what was read: another process saw a rotation first. So the
// files are read again, at most once a second, since anybody can name a key.
func (k *KeyRing) find(id string, now time.Time) (ed25519.PublicKey, bool) {
	if key, ok := k.known(id, now); ok {
		return key, true
	}
	last, this := k.lookedAgain.Load(), time.Now().Unix()
	if last == this || !k.lookedAgain.CompareAndSwap(last, this) {
		return nil, false
	}
	if err := k.Reload(); err != nil {
		return nil, false // the keys stay as they were, and this one is not among them
	}
	return k.known(id, now)
}

func (k *KeyRing) known(id string, now time.Time) (ed25519.PublicKey, bool) {
	pair := k.pair.Load()
	for _, key := range []*signingKey{pair.current, pair.previous} {
		if key.accepted(now) && key.id == id {
			return key.public(), true
		}
	}
	return nil, false
}

// accepted compares the stored time of retirement: an old file that was never
// removed is worth nothing.
func (k *signingKey) accepted(now time.Time) bool {
	return k != nil && (k.retiredAt.IsZero() || now.Before(k.retiredAt.Add(PreviousKeyLife)))
}

// NewKeyFile makes a key and writes it to path, readable by its owner only. It
// never overwrites a file. It returns the key's id.
func NewKeyFile(path string) (kid string, err error) {
	file := newKey()
	body, err := file.marshal()
	if err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return "", fmt.Errorf("new link key: %w", err)
	}
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return "", fmt.Errorf("new link key: %w", err)
	}
	return file.KeyID, nil
}

// Rotate puts a new key in the place of dir's current one, which becomes the
// previous one with its time of retirement. Every process has to reload its
// KeyRing afterwards. Each step replaces a whole file, and a rotation that was
// cut off can be run again. It returns the new key's id.
func Rotate(dir string, now time.Time) (kid string, err error) {
	currentPath, previousPath := filepath.Join(dir, CurrentKeyFile), filepath.Join(dir, PreviousKeyFile)
	current, _, err := readKey(currentPath)
	if err != nil {
		return "", fmt.Errorf("rotate link keys: %w", err)
	}
	previous, _, err := readKey(previousPath)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return "", fmt.Errorf("rotate link keys: %w", err)
	case previous.id != current.id && now.Before(previous.retiredAt.Add(LinkLife)):
		return "", fmt.Errorf("rotate link keys: %w", ErrRotatedTooSoon)
	}
	retired := fileOf(current.private)
	at := now.UTC().Truncate(time.Second)
	retired.RetiredAt = &at
	next := newKey()
	// The old key is kept first: cut off in between, both files hold the same
	// key, and no link has lost the key that verifies it.
	if err := replaceFile(previousPath, retired); err != nil {
		return "", fmt.Errorf("rotate link keys: %w", err)
	}
	if err := replaceFile(currentPath, next); err != nil {
		return "", fmt.Errorf("rotate link keys: %w", err)
	}
	return next.KeyID, nil
}

// replaceFile writes beside path and renames, so that a reader meets the old
// key or the new one and never a half.
func replaceFile(path string, file keyFile) (err error) {
	body, err := file.marshal()
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-key-*") // made with 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(body)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func newKey() keyFile {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic("checkout: " + err.Error()) // crypto/rand is documented never to fail
	}
	return fileOf(private)
}

func fileOf(private ed25519.PrivateKey) keyFile {
	public := private.Public().(ed25519.PublicKey)
	return keyFile{
		KeyType: "OKP", Curve: "Ed25519", X: encode(public), D: encode(private.Seed()),
		KeyID: thumbprint(public), Use: "sig", Algorithm: "EdDSA",
	}
}

func (f keyFile) marshal() ([]byte, error) {
	body, err := json.MarshalIndent(f, "", "  ")
	return append(body, '\n'), err
}

// maxKeyFile is far more than a key takes; a path that points at something
// else is noticed before it is read into memory.
const maxKeyFile = 4 << 10

// readKey reads and checks one key file. problem is a sentence about a file
// that others may read. Errors name the path and the member, never a value.
func readKey(path string) (key *signingKey, problem string, err error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, "", err
	}
	if !info.Mode().IsRegular() || info.Size() > maxKeyFile {
		return nil, "", fmt.Errorf("%s is not a key file", path)
	}
	// The group's bits are left to whoever set them: Kubernetes gives the files
	// of a mounted secret to the pod's group (fsGroup) and adds 0440, and there is
	// nobody else in that group.
	if mode := info.Mode().Perm(); mode&0o007 != 0 {
		problem = fmt.Sprintf("%s can be read by everybody on the machine (mode %04o, want 0600): whoever reads it can sign links", path, mode)
	}
	body, err := os.ReadFile(path)
	if err != nil {
		return nil, "", err
	}
	var file keyFile
	if json.Unmarshal(body, &file) != nil { // the decoder's own error may quote the file
		return nil, "", fmt.Errorf("%s is not a JSON Web Key; make one with \"paythread keys new\"", path)
	}
	if file.KeyType != "OKP" || file.Curve != "Ed25519" {
		return nil, "", fmt.Errorf("%s: want kty \"OKP\" and crv \"Ed25519\"", path)
	}
	seed, err := decode(file.D, ed25519.SeedSize)
	if err != nil {
		return nil, "", fmt.Errorf("%s: member \"d\" %w", path, err)
	}
	x, err := decode(file.X, ed25519.PublicKeySize)
	if err != nil {
		return nil, "", fmt.Errorf("%s: member \"x\" %w", path, err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	public := private.Public().(ed25519.PublicKey)
	if !public.Equal(ed25519.PublicKey(x)) {
		return nil, "", fmt.Errorf("%s: members \"x\" and \"d\" are not of one key", path)
	}
	id := thumbprint(public)
	if file.KeyID != "" && file.KeyID != id {
		return nil, "", fmt.Errorf("%s: member \"kid\" is not the key's thumbprint %s", path, id)
	}
	key = &signingKey{id: id, private: private}
	if file.RetiredAt != nil {
		key.retiredAt = *file.RetiredAt
	}
	return key, problem, nil
}

// thumbprint is the key id: RFC 7638 over the members that RFC 8037 names, in
// their order and without spaces.
func thumbprint(public ed25519.PublicKey) string {
	sum := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + encode(public) + `"}`))
	return encode(sum[:])
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// decode reads unpadded base64url of exactly size bytes. (The decoder by
// itself would skip line breaks.)
func decode(s string, size int) ([]byte, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(b) != size || strings.ContainsAny(s, "\r\n") {
		return nil, fmt.Errorf("is not %d bytes in unpadded base64url", size)
	}
	return b, nil
}
