package twilio_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// TestCheck runs the files testdata/check_*.txtar. Their parts are
//
//	settings.json  what differs from the usual settings, and the channel
//	answers        one a line: method and address, then status and JSON
//	want           what is asked, and what is found
//
// "go test -args -update" rewrites the last.
func TestCheck(t *testing.T) {
	t.Parallel()
	paths, err := filepath.Glob(filepath.Join("testdata", "check_*.txtar"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no testdata/check_*.txtar: %v", err)
	}
	states := map[providers.FindingState]bool{}
	for _, path := range paths {
		archive, err := txtar.ParseFile(path)
		if err != nil {
			t.Fatal(err)
		}
		part := map[string]*txtar.File{}
		for i := range archive.Files {
			part[archive.Files[i].Name] = &archive.Files[i]
		}
		settings := map[string]string{}
		if err := json.Unmarshal(part["settings.json"].Data, &settings); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		channel := conversations.Channel(settings["channel"])
		delete(settings, "channel")
		far := &farEnd{t: t, answers: map[string]string{}}
		for line := range strings.Lines(string(part["answers"].Data)) {
			call, answer, _ := strings.Cut(strings.TrimSpace(line), " => ")
			far.answers[call] = answer
		}
		found := far.serve(channel, settings).Check(t.Context())
		var b bytes.Buffer
		for _, call := range far.asked {
			fmt.Fprintf(&b, "%s\n", strings.ReplaceAll(call, "/2010-04-01/Accounts/", ""))
		}
		for _, f := range found {
			states[f.State] = true
			fmt.Fprintf(&b, "\n%s: %s: %s\n", f.State, f.Check, f.Detail)
			if f.Mend != "" {
				fmt.Fprintf(&b, "  %s\n", f.Mend)
			}
			if (f.State == providers.FindingOK) != (f.Mend == "") {
				t.Errorf("%s: %q is %s and says how to mend it: %q", path, f.Check, f.State, f.Mend)
			}
			for _, secret := range []string{"pbc-test-auth-token", settings["api_key_secret"]} {
				if secret != "" && strings.Contains(f.Detail+f.Mend, secret) {
					t.Errorf("%s: a finding holds a secret", path)
				}
			}
		}
		want := part["want"]
		if want == nil {
			archive.Files = append(archive.Files, txtar.File{Name: "want"})
			want = &archive.Files[len(archive.Files)-1]
		}
		if bytes.Equal(want.Data, b.Bytes()) {
			continue
		}
		if flag.Lookup("update").Value.String() != "true" {
			t.Errorf("%s: got\n%s\nwant\n%s", path, b.Bytes(), want.Data)
			continue
		}
		want.Data = b.Bytes()
		if err := os.WriteFile(path, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, state := range []providers.FindingState{providers.FindingOK, providers.FindingWarning, providers.FindingWrong} {
		if !states[state] {
			t.Errorf("nothing is found %s in any case", state)
		}
	}
}
