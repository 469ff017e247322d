package main

import (
	"bufio"
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// nodeDir is a folder in which Node.js finds the libraries of
// scripts/testclients.
type nodeDir struct {
	t    *testing.T
	path string
	node string
}

func newNodeDir(t *testing.T, wants ...string) nodeDir {
	t.Helper()
	const install = "install what the tests need with scripts/install-test-tools"
	modules, err := filepath.Abs(filepath.Join("..", "scripts", "testclients", "node_modules"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range wants {
		if _, err := os.Stat(filepath.Join(modules, filepath.FromSlash(name), "package.json")); errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s for Node.js is missing: %s", name, install)
		}
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("Node.js is missing: %s", install)
	}
	d := nodeDir{t: t, path: t.TempDir(), node: node}
	if err := os.Symlink(modules, filepath.Join(d.path, "node_modules")); err != nil {
		t.Fatal(err)
	}
	return d
}

func (d nodeDir) write(name string, text []byte) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.path, name), text, 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// copy takes the files of an example of the documentation.
func (d nodeDir) copy(from string, names ...string) {
	d.t.Helper()
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join("..", "docs", "examples", from, name))
		if err != nil {
			d.t.Fatal(err)
		}
		d.write(name, text)
	}
}

func (d nodeDir) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(d.t.Context(), d.node, args...)
	cmd.Dir = d.path
	return cmd
}

// run runs a program to its end and returns what it printed.
func (d nodeDir) run(args ...string) (string, error) {
	out, err := d.command(args...).CombinedOutput()
	return string(out), err
}

// program is a program that runs beside the test and says what it does, line by
// line.
type program struct {
	t     *testing.T
	said  chan string
	wrong *bytes.Buffer
}

// start starts a program; it ends with the test, at the latest.
func (d nodeDir) start(env []string, args ...string) *program {
	d.t.Helper()
	p := &program{t: d.t, said: make(chan string, 100), wrong: &bytes.Buffer{}}
	cmd := d.command(args...)
	cmd.Env, cmd.Stderr = append(os.Environ(), env...), p.wrong
	out, err := cmd.StdoutPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(p.said)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.said <- s.Text()
		}
		_ = cmd.Wait() // what it said is what counts
	}()
	d.t.Cleanup(func() {
		_ = cmd.Process.Kill() // fails only if it has ended already
		<-ended
	})
	return p
}

// says waits for a line that begins so, and returns the rest of it.
func (p *program) says(begin string) string {
	p.t.Helper()
	late := time.NewTimer(longestWait)
	defer late.Stop()
	var before []string
	for {
		select {
		case line, ok := <-p.said:
			if !ok {
				p.t.Fatalf("the program ended without a word of %q; it said %q and complained\n%s", begin, before, p.wrong.String())
			}
			if rest, ok := strings.CutPrefix(line, begin); ok {
				return strings.TrimSpace(rest)
			}
			before = append(before, line)
		case <-late.C:
			p.t.Fatalf("the program does not say %q; it said %q", begin, before)
		}
	}
}

// openAPIChecker says whether a description is OpenAPI, by the words of others.
const openAPIChecker = `
import { Validator } from '@seriousme/openapi-schema-validator';
const validator = new Validator();
const { valid, errors } = await validator.validate(process.argv[2]);
console.log(valid ? 'valid ' + validator.version : 'wrong ' + JSON.stringify(errors));
`

// TestDescriptionIsOpenAPI: a public validator takes the description for what it
// says it is, and would notice if it were not.
func TestDescriptionIsOpenAPI(t *testing.T) {
	t.Parallel()
	d := newNodeDir(t, "@seriousme/openapi-schema-validator")
	text, err := documented(t).openAPI()
	if err != nil {
		t.Fatal(err)
	}
	d.write("openapi.json", text)
	d.write("wrong.json", bytes.Replace(text, []byte(`"in": "path"`), []byte(`"in": "nowhere"`), 1))
	d.write("check.mjs", []byte(openAPIChecker))
	if said, err := d.run("check.mjs", "openapi.json"); err != nil || strings.TrimSpace(said) != "valid 3.1" {
		t.Errorf("the description: %v, %s", err, said)
	}
	if said, err := d.run("check.mjs", "wrong.json"); err != nil || !strings.HasPrefix(said, "wrong ") {
		t.Errorf("a description with a mistake: %v, %s", err, said)
	}
}

// TestClientMadeFromTheDescription: a public generator makes a client of the description,
// which compiles, and with which a shop is paid and gives money back.
func TestClientMadeFromTheDescription(t *testing.T) {
	t.Parallel()
	d := newNodeDir(t, "openapi-typescript", "openapi-fetch", "typescript")
	s := newTale(t, newStage(t, stageOptions{Redis: onRealRedis}))
	s.at = "docs/examples/typescript"
	d.copy("typescript", "pay.ts", "tsconfig.json", "package.json")
	d.write("openapi.json", s.want(s.call("GET", s.public+"/openapi.json", nil, nil), 200).body)
	for _, step := range [][]string{
		{"node_modules/openapi-typescript/bin/cli.js", "openapi.json", "-o", "paythread.d.ts"},
		{"node_modules/typescript/bin/tsc"},
	} {
		if said, err := d.run(step...); err != nil {
			t.Fatalf("%s: %v\n%s", step[0], err, said)
		}
	}
	shop := d.start([]string{"GATEWAY=" + s.public, "API_KEY=" + demoAPIKey}, "pay.js")
	id := shop.says("asked ")
	s.customerReceives([]string{"payment", "whatsapp"})
	s.customerOpens(nil)
	s.customerPays([]string{"approved"})
	if got := shop.says("paid "); got != id {
		t.Errorf("the client says that %s was paid, want %s", got, id)
	}
	if got := shop.says("refunded "); got != "10.00" {
		t.Errorf("the client says that %s was refunded, want 10.00", got)
	}
	if taken, back := s.ledger(); taken != 1 || back != 1 {
		t.Errorf("the platform has %d payments and %d given back, want one of each", taken, back)
	}
	if state := s.state(id, demoAPIKey); state.Lifecycle != "partially_refunded" {
		t.Errorf("the payment request is %s", state.Lifecycle)
	}
	// What the description forbids does not compile.
	text, err := os.ReadFile(filepath.Join(d.path, "pay.ts"))
	if err != nil {
		t.Fatal(err)
	}
	d.write("pay.ts", bytes.Replace(text, []byte("channel: 'whatsapp'"), []byte("channel: 'pigeon'"), 1))
	if said, err := d.run("node_modules/typescript/bin/tsc", "--noEmit", "--skipLibCheck"); err == nil || !strings.Contains(said, "pigeon") {
		t.Errorf("a wrong channel compiles: %s", said)
	}
}
