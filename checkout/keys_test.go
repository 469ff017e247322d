package checkout

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// The key of RFC 8037, appendix A.
const (
	rfcD   = "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"
	rfcX   = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
	rfcKID = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
)

var noon = time.Date(2026, 1, 15, 12, 0, 0, 0, time.UTC)

func write(t *testing.T, name, body string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(body), mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// newRing makes a folder with one key and loads it.
func newRing(t *testing.T) (dir string, ring *KeyRing) {
	t.Helper()
	dir = t.TempDir()
	if _, err := NewKeyFile(filepath.Join(dir, CurrentKeyFile)); err != nil {
		t.Fatal(err)
	}
	return dir, load(t, dir)
}

func load(t *testing.T, dir string) *KeyRing {
	t.Helper()
	ring, err := LoadKeys(filepath.Join(dir, CurrentKeyFile), filepath.Join(dir, PreviousKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

func keyIDs(t *testing.T, jwks []byte) []string {
	t.Helper()
	var set struct{ Keys []map[string]any }
	if err := json.Unmarshal(jwks, &set); err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, key := range set.Keys {
		if _, private := key["d"]; private {
			t.Fatal("the key set holds a private key")
		}
		ids = append(ids, key["kid"].(string))
	}
	return ids
}

func TestKeyIDIsTheThumbprintOfRFC8037(t *testing.T) {
	t.Parallel()
	path := write(t, "key", `{"kty":"OKP","crv":"Ed25519","d":"`+rfcD+`","x":"`+rfcX+`"}`, 0o600)
	ring, err := LoadKeys(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if got := ring.KeyID(); got != rfcKID {
		t.Errorf("kid %q, want %q", got, rfcKID)
	}
	if got := keyIDs(t, ring.JWKS()); len(got) != 1 || got[0] != rfcKID {
		t.Errorf("key set lists %q, want the one key", got)
	}
}

func TestKeyFilesAreReadStrictly(t *testing.T) {
	t.Parallel()
	other := newKey()
	for _, tt := range []struct{ name, body, want string }{
		{"no JSON", "-----BEGIN PRIVATE KEY-----", "not a JSON Web Key"},
		{"another type", `{"kty":"RSA","crv":"Ed25519","d":"` + rfcD + `","x":"` + rfcX + `"}`, "kty"},
		{"another curve", `{"kty":"OKP","crv":"Ed448","d":"` + rfcD + `","x":"` + rfcX + `"}`, "crv"},
		{"short d", `{"kty":"OKP","crv":"Ed25519","d":"` + rfcD[:40] + `","x":"` + rfcX + `"}`, `"d" is not 32 bytes`},
		{"long d", `{"kty":"OKP","crv":"Ed25519","d":"` + rfcD + `AAAA","x":"` + rfcX + `"}`, `"d" is not 32 bytes`},
		{"padded d", `{"kty":"OKP","crv":"Ed25519","d":"` + rfcD + `=","x":"` + rfcX + `"}`, `"d" is not 32 bytes`},
		{"line break in d", `{"kty":"OKP","crv":"Ed25519","d":"` + rfcD + `\n","x":"` + rfcX + `"}`, `"d" is not 32 bytes`},
		{"no x", `{"kty":"OKP","crv":"Ed25519","d":"` + rfcD + `"}`, `"x" is not 32 bytes`},
		{"x of another key", `{"kty":"OKP","crv":"Ed25519","d":"` + rfcD + `","x":"` + other.X + `"}`, "not of one key"},
		{"another kid", `{"kty":"OKP","crv":"Ed25519","d":"` + rfcD + `","x":"` + rfcX + `","kid":"mine"}`, `"kid"`},
		{"retired", `{"kty":"OKP","crv":"Ed25519","d":"` + rfcD + `","x":"` + rfcX + `","retired_at":"2026-01-15T12:00:00Z"}`, "retired"},
		{"huge", strings.Repeat(" ", maxKeyFile+1), "not a key file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := LoadKeys(write(t, "key", tt.body, 0o600), "")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("error %v, want one about %q", err, tt.want)
			}
			if strings.Contains(err.Error(), rfcD[:40]) {
				t.Error("the error holds the private key")
			}
		})
	}
	if _, err := LoadKeys(t.TempDir(), ""); err == nil {
		t.Error("a folder was taken as a key file")
	}
}

func TestNewKeyFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "key.jwk")
	kid, err := NewKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, error %v, want 0600", info.Mode(), err)
	}
	ring, err := LoadKeys(path, "")
	if err != nil || ring.KeyID() != kid {
		t.Fatalf("loaded %v, error %v, want key %s", ring, err, kid)
	}
	if problems := ring.Problems(); len(problems) != 0 {
		t.Errorf("problems %q, want none", problems)
	}
	if _, err := NewKeyFile(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("second NewKeyFile: %v, want a refusal to overwrite", err)
	}
}

// TestKeyThatIsTakenAwayTooSoon: while links that it signed may be alive, that is
// a problem, and none once it is back.
func TestKeyThatIsTakenAwayTooSoon(t *testing.T) {
	t.Parallel()
	dir, _ := newRing(t)
	ring := load(t, dir)
	first := ring.KeyID()
	reload := func(want ...string) {
		t.Helper()
		if err := ring.Reload(); err != nil {
			t.Fatal(err)
		}
		problems := ring.Problems()
		if len(problems) != len(want) {
			t.Fatalf("problems %q, want %d", problems, len(want))
		}
		all := strings.Join(problems, "\n")
		for _, id := range want {
			if !strings.Contains(all, "key "+id+" is gone") {
				t.Errorf("problems %q, want one about %s", problems, id)
			}
		}
	}
	second, err := Rotate(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	reload() // as it should be done
	previous := filepath.Join(dir, PreviousKeyFile)
	if err := os.Rename(previous, previous+".away"); err != nil {
		t.Fatal(err)
	}
	reload(first)
	reload(first) // for as long as it lasts
	if err := os.Rename(previous+".away", previous); err != nil {
		t.Fatal(err)
	}
	reload()
	if err := os.Remove(filepath.Join(dir, CurrentKeyFile)); err != nil {
		t.Fatal(err)
	}
	if _, err := NewKeyFile(filepath.Join(dir, CurrentKeyFile)); err != nil {
		t.Fatal(err)
	}
	reload(second)
	// A key that was retired long ago may go.
	late := &keyPair{current: &signingKey{id: "new"}}
	late.mourn(&keyPair{current: &signingKey{id: "new"}, previous: &signingKey{id: "old", retiredAt: time.Now().Add(-LinkLife)}}, time.Now())
	if len(late.problems) > 0 {
		t.Errorf("problems %q", late.problems)
	}
}

func TestReadableKeyFileIsAProblem(t *testing.T) {
	t.Parallel()
	dir, _ := newRing(t)
	path := filepath.Join(dir, CurrentKeyFile)
	for mode, want := range map[os.FileMode]string{
		0o400: "",
		0o440: "", // as Kubernetes gives a mounted secret to the pod's group
		0o640: "",
		0o644: "0644",
		0o604: "0604",
		0o666: "0666",
	} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		problems := load(t, dir).Problems()
		if want == "" && len(problems) > 0 || want != "" && (len(problems) != 1 || !strings.Contains(problems[0], want)) {
			t.Errorf("mode %04o: problems %q, want one that names %q", mode, problems, want)
		}
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	dir, ring := newRing(t)
	first := ring.KeyID()
	second, err := Rotate(dir, noon)
	if err != nil {
		t.Fatal(err)
	}
	if ring.KeyID() != first {
		t.Error("a loaded ring changed before it was reloaded")
	}
	if err := ring.Reload(); err != nil {
		t.Fatal(err)
	}
	if ring.KeyID() != second || second == first {
		t.Errorf("current key %s, want the new one %s", ring.KeyID(), second)
	}
	if got := keyIDs(t, ring.jwks(noon.Add(PreviousKeyLife-time.Second))); len(got) != 2 || got[0] != second || got[1] != first {
		t.Errorf("key set within 48 hours %q, want %q", got, []string{second, first})
	}
	if got := keyIDs(t, ring.jwks(noon.Add(PreviousKeyLife))); len(got) != 1 || got[0] != second {
		t.Errorf("key set after 48 hours %q, want %q alone", got, second)
	}
	for _, name := range []string{CurrentKeyFile, PreviousKeyFile} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, error %v, want 0600", name, info.Mode(), err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d files left, error %v, want the two keys", len(entries), err)
	}
}

func TestRotateTwiceWithinADayIsRefused(t *testing.T) {
	t.Parallel()
	dir, _ := newRing(t)
	if _, err := Rotate(dir, noon); err != nil {
		t.Fatal(err)
	}
	if _, err := Rotate(dir, noon.Add(LinkLife-time.Second)); !errors.Is(err, ErrRotatedTooSoon) {
		t.Fatalf("second rotation: %v, want ErrRotatedTooSoon", err)
	}
	if _, err := Rotate(dir, noon.Add(LinkLife)); err != nil {
		t.Fatalf("rotation a day later: %v", err)
	}
}

func TestRotationCutOffIsRunAgain(t *testing.T) {
	t.Parallel()
	dir, ring := newRing(t)
	first := ring.KeyID()
	// What is left when the process dies between the two renames.
	half := fileOf(ring.pair.Load().current.private)
	half.RetiredAt = &noon
	if err := replaceFile(filepath.Join(dir, PreviousKeyFile), half); err != nil {
		t.Fatal(err)
	}
	if err := ring.Reload(); err != nil {
		t.Fatalf("reload after a cut-off rotation: %v", err)
	}
	if ring.KeyID() != first || len(keyIDs(t, ring.jwks(noon))) != 1 || len(ring.Problems()) != 1 {
		t.Errorf("key %s, problems %q, want the first key alone and one problem", ring.KeyID(), ring.Problems())
	}
	if _, err := Rotate(dir, noon.Add(time.Minute)); err != nil {
		t.Fatalf("rotation run again: %v", err)
	}
	if err := ring.Reload(); err != nil || ring.KeyID() == first {
		t.Errorf("key %s, error %v, want a new one", ring.KeyID(), err)
	}
}

func TestPreviousKeyNeedsItsRetirement(t *testing.T) {
	t.Parallel()
	dir, ring := newRing(t)
	if err := replaceFile(filepath.Join(dir, PreviousKeyFile), newKey()); err != nil {
		t.Fatal(err)
	}
	before := ring.KeyID()
	if err := ring.Reload(); err == nil || !strings.Contains(err.Error(), "retired_at") {
		t.Errorf("reload: %v, want an error that names retired_at", err)
	}
	if ring.KeyID() != before {
		t.Error("a failed reload changed the keys")
	}
}

func TestReloadWhileLinksAreMinted(t *testing.T) {
	t.Parallel()
	dir, ring := newRing(t)
	if _, err := Rotate(dir, noon); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				token, err := ring.MintLink(LinkPay, "pr_1", "https://pay.example.test", noon)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err := ring.RedeemLink(LinkPay, token, "https://pay.example.test", noon); err != nil {
					t.Errorf("redeem: %v", err)
					return
				}
			}
		})
	}
	for range 20 {
		if err := ring.Reload(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}

// A process that has not yet read the new key meets a link signed with it.
func TestALinkOfANewerKeyIsUnderstood(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	current, previous := filepath.Join(dir, CurrentKeyFile), filepath.Join(dir, PreviousKeyFile)
	if _, err := NewKeyFile(current); err != nil {
		t.Fatal(err)
	}
	slow, err := LoadKeys(current, previous)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	if _, err := Rotate(dir, now); err != nil {
		t.Fatal(err)
	}
	quick, err := LoadKeys(current, previous)
	if err != nil {
		t.Fatal(err)
	}
	const issuer = "https://pay.acme.example"
	token, err := quick.MintLink(LinkPay, "pr_0r7vm5vapk9kymg1znxb", issuer, now)
	if err != nil {
		t.Fatal(err)
	}
	if id, err := slow.RedeemLink(LinkPay, token, issuer, now); err != nil || id != "pr_0r7vm5vapk9kymg1znxb" {
		t.Errorf("redeemed %q, %v; want the request, since the new key's file is there", id, err)
	}
}
