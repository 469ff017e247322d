package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"paythread/checkout"
)

// execute runs the program in this process.
func execute(t *testing.T, env []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs strings.Builder
	code = run(t.Context(), args, strings.NewReader(""), &out, &errs, env)
	return code, out.String(), errs.String()
}

func exampleFile(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "paythread.yaml")
	if err := os.WriteFile(file, printExample(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestRun(t *testing.T) {
	t.Parallel()
	example := exampleFile(t)
	wrong := filepath.Join(t.TempDir(), "wrong.yaml")
	if err := os.WriteFile(wrong, []byte("lisen: :80\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		args   []string
		code   int
		stdout string // part of it; "" means nothing at all
		stderr string
	}{
		"nothing":            {nil, exitUsage, "", "config check"},
		"help":               {[]string{"help"}, exitOK, "keys new", ""},
		"-h":                 {[]string{"-h"}, exitOK, "config example", ""},
		"unknown":            {[]string{"verison"}, exitUsage, "", `no command "verison", did you mean version?`},
		"unknown and far":    {[]string{"make-coffee"}, exitUsage, "", `no command "make-coffee"` + "\n"},
		"group":              {[]string{"config"}, exitUsage, "", "config schema"},
		"group help":         {[]string{"config", "-h"}, exitOK, "config schema", ""},
		"group unknown":      {[]string{"config", "chekc"}, exitUsage, "", `no "chekc", did you mean check?`},
		"command help":       {[]string{"config", "check", "-h"}, exitOK, "--config FILE", ""},
		"version":            {[]string{"version"}, exitOK, "paythread ", ""},
		"version with more":  {[]string{"version", "now"}, exitUsage, "", `does not take "now"`},
		"unknown flag":       {[]string{"version", "--long"}, exitUsage, "", "not defined: -long"},
		"schema":             {[]string{"config", "schema"}, exitOK, `"$schema"`, ""},
		"example":            {[]string{"config", "example"}, exitOK, "merchants:", ""},
		"check":              {[]string{"config", "check", "--config", example}, exitOK, "is right: 1 merchant,", ""},
		"check without file": {[]string{"config", "check"}, exitUsage, "", "--config FILE is missing"},
		"check of no file":   {[]string{"config", "check", "--config", "not-there.yaml"}, exitFailed, "", "not-there.yaml"},
		"check of a wrong":   {[]string{"config", "check", "--config", wrong}, exitFailed, "", "wrong.yaml:1: lisen: is not a setting, did you mean listen?"},
		"keys without dir":   {[]string{"keys", "new"}, exitUsage, "", "--dir DIR is missing"},
		"audit of five":      {[]string{"audit", "--config", wrong, "--merchant", "acme", "--since", "5"}, exitUsage, "", "want a duration such as 30s"},
		"audit of days":      {[]string{"audit", "--config", wrong, "--merchant", "acme", "--since", "3d"}, exitFailed, "", "lisen"},
		"doctor of a wrong":  {[]string{"doctor", "--config", wrong}, exitFailed, "", "problems"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, out, errs := execute(t, nil, tt.args...)
			if code != tt.code {
				t.Errorf("exit code = %d, want %d", code, tt.code)
			}
			for _, x := range []struct{ name, got, want string }{{"stdout", out, tt.stdout}, {"stderr", errs, tt.stderr}} {
				if !strings.Contains(x.got, x.want) || x.want == "" && x.got != "" {
					t.Errorf("%s = %q, want %q in it", x.name, x.got, x.want)
				}
			}
		})
	}
}

func TestRunExampleIsRight(t *testing.T) {
	t.Parallel()
	_, example, _ := execute(t, nil, "config", "example")
	file := filepath.Join(t.TempDir(), "paythread.yaml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := execute(t, nil, "config", "check", "--config", file); code != exitOK {
		t.Errorf("config check of config example = %d\n%s%s", code, out, errs)
	}
	// What the environment says counts for the check, too.
	code, _, errs := execute(t, []string{"PAYTHREAD_LISTEN=x"}, "config", "check", "--config", file)
	if code != exitFailed || !strings.Contains(errs, "PAYTHREAD_LISTEN") {
		t.Errorf("config check with a wrong variable = %d %s", code, errs)
	}
}

func TestRunKeysNew(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "new", "keys")
	code, out, errs := execute(t, nil, "keys", "new", "--dir", dir)
	if code != exitOK || !strings.Contains(out, "Made key") {
		t.Fatalf("keys new = %d %s%s", code, out, errs)
	}
	first, err := checkout.LoadKeys(LinkKeysConfig{Dir: dir}.Files())
	if err != nil {
		t.Fatal(err)
	}
	if code, out, errs = execute(t, nil, "keys", "new", "--dir", dir); code != exitOK || !strings.Contains(out, checkout.PreviousKeyFile) {
		t.Fatalf("keys new again = %d %s%s", code, out, errs)
	}
	second, err := checkout.LoadKeys(LinkKeysConfig{Dir: dir}.Files())
	if err != nil {
		t.Fatal(err)
	}
	if first.KeyID() == second.KeyID() || !strings.Contains(string(second.JWKS()), first.KeyID()) {
		t.Error("the second key did not replace the first and keep it as the previous one")
	}
	// A third at once would end links that the first one signed.
	if code, _, errs = execute(t, nil, "keys", "new", "--dir", dir); code != exitFailed || !strings.Contains(errs, "rotate") {
		t.Errorf("a third key at once = %d %s", code, errs)
	}
}

// TestCommandsComplete: each command says what it does, in the form of the
// others, and no name hides another.
func TestCommandsComplete(t *testing.T) {
	t.Parallel()
	var names []string
	for _, c := range commands {
		if c.short == "" || c.long == "" || c.prepare == nil || strings.HasSuffix(c.short, ".") || !strings.HasSuffix(c.long, ".") {
			t.Errorf("%s: want a short line without a full stop, long sentences with one, and prepare", c.name)
		}
		for _, other := range names {
			if strings.HasPrefix(c.name+" ", other+" ") || strings.HasPrefix(other+" ", c.name+" ") {
				t.Errorf("%q and %q cannot be told apart", c.name, other)
			}
		}
		names = append(names, c.name)
		code, out, _ := execute(t, nil, append(strings.Fields(c.name), "-h")...)
		if code != exitOK || !strings.Contains(out, "Usage: paythread "+c.name) {
			t.Errorf("%s -h = %d %s", c.name, code, out)
		}
	}
	for _, want := range []string{"config check", "config example", "config schema", "keys new", "doctor", "version"} {
		if !slices.Contains(names, want) {
			t.Errorf("there is no command %q", want)
		}
	}
}
