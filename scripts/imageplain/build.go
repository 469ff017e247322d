package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// stage is one stage of the image, laid out in a folder that stands for its
// root. An image is its last stage.
type stage struct {
	base, root string
	workdir    string
	values     map[string]string // ARG and ENV
	env        []string          // what a process in the image gets
	labels     map[string]string
	user       string
	ports      []string
	entrypoint []string
}

// builder follows a Dockerfile.
type builder struct {
	ctx     context.Context
	context string // folder that COPY copies from
	dir     string // where stages are laid out
	given   map[string]string
	ignore  []string
	stages  map[string]*stage
	now     *stage
}

// build does what the Dockerfile in text says, with context as the folder that
// it copies from, and lays the stages out in dir.
func build(ctx context.Context, text, from, dir, version string) (*stage, error) {
	all, err := parse(text)
	if err != nil {
		return nil, err
	}
	b := &builder{
		ctx: ctx, context: from, dir: dir, stages: map[string]*stage{},
		// The last three are an engine's own.
		given: map[string]string{"VERSION": version, "TARGETOS": runtime.GOOS, "TARGETARCH": runtime.GOARCH, "BUILDPLATFORM": ""},
	}
	if b.ignore, err = ignored(filepath.Join(from, ".dockerignore")); err != nil {
		return nil, err
	}
	for _, i := range all {
		if b.now == nil && i.name != "FROM" {
			return nil, i.fail("comes before FROM")
		}
		if err := b.follow(i); err != nil {
			return nil, err
		}
	}
	if b.now == nil {
		return nil, errors.New("the Dockerfile has no FROM")
	}
	return b.now, nil
}

func (b *builder) follow(i instruction) error {
	s := b.now
	switch i.name {
	case "FROM":
		return b.from(i)
	case "WORKDIR":
		s.workdir = i.text
		return os.MkdirAll(s.root+s.workdir, 0o755)
	case "ARG":
		name, value, _ := strings.Cut(i.text, "=")
		if given, is := b.given[name]; is {
			value = given
		}
		s.values[name] = value
	case "ENV":
		pairs, err := i.pairs(s.values)
		if err != nil {
			return err
		}
		for name, value := range pairs {
			s.values[name] = value
			s.env = append(s.env, name+"="+value)
		}
	case "LABEL":
		pairs, err := i.pairs(s.values)
		if err != nil {
			return err
		}
		s.labels = pairs
	case "USER":
		s.user = i.text
	case "EXPOSE": // tells people, and does nothing
		s.ports = strings.Fields(i.text)
	case "ENTRYPOINT":
		if err := json.Unmarshal([]byte(i.text), &s.entrypoint); err != nil {
			return i.fail("is not a list in JSON: a shell would have to be in the image")
		}
	case "COPY":
		return b.copy(i)
	case "RUN":
		return b.run(i)
	}
	return nil
}

var fromForm = regexp.MustCompile(`^(\S+)(?: [Aa][Ss] (\S+))?$`)

func (b *builder) from(i instruction) error {
	m := fromForm.FindStringSubmatch(i.text)
	if m == nil {
		return i.fail("%q is not IMAGE [AS NAME]", i.text)
	}
	if version, is := strings.CutPrefix(m[1], "golang:"); is {
		if have := runtime.Version(); have != "go"+version && !strings.HasPrefix(have, "go"+version+".") {
			return i.fail("builds with Go %s, and this machine has %s", version, have)
		}
	} else if m[1] != "scratch" {
		return i.fail("%s: the plain steps know golang and scratch", m[1])
	}
	// An engine builds each platform's image from the same lines.
	switch platform := i.flags["platform"]; {
	case m[1] == "scratch" && platform != "":
		return i.fail("--platform=%s: the image would be for the machine that builds", platform)
	case m[1] != "scratch" && platform != "$BUILDPLATFORM":
		return i.fail("wants --platform=$BUILDPLATFORM: it would build by emulation")
	}
	b.now = &stage{base: m[1], root: filepath.Join(b.dir, fmt.Sprintf("stage%d", len(b.stages))), workdir: "/", values: map[string]string{}}
	name := m[2]
	if name == "" {
		name = fmt.Sprint(len(b.stages))
	}
	b.stages[name] = b.now
	return os.MkdirAll(b.now.root, 0o755)
}

// plainCommand is what RUN may say: the plain steps run it on the machine
// itself, where nothing may be installed or changed.
var plainCommand = regexp.MustCompile(`^((?:[A-Z]+=\S* )*)(go mod download|scripts/build )`)

// absolute is a path from the root in a command.
var absolute = regexp.MustCompile(`(^|\s)(/\S+)`)

func (b *builder) run(i instruction) error {
	if b.now.base == "scratch" {
		return i.fail("has nothing to run with in an empty image")
	}
	if !plainCommand.MatchString(i.text) || strings.ContainsAny(i.text, ";&|`<>") {
		return i.fail("%q: the plain steps run \"go mod download\" and scripts/build alone; what has to be done belongs into scripts/build", i.text)
	}
	if program := plainCommand.FindStringSubmatch(i.text); program[2] == "scripts/build " {
		for _, variable := range []string{"GOOS=" + b.given["TARGETOS"], "GOARCH=" + b.given["TARGETARCH"]} {
			if !slices.Contains(strings.Fields(expand(program[1], b.now.values)), variable) {
				return i.fail("builds for the machine that builds: want GOOS=$TARGETOS GOARCH=$TARGETARCH, both declared with ARG")
			}
		}
	}
	command := absolute.ReplaceAllString(i.text, "${1}"+b.now.root+"$2")
	fmt.Println("+", i.text)
	shell := exec.CommandContext(b.ctx, "sh", "-c", command)
	shell.Dir = b.now.root + b.now.workdir
	shell.Env = os.Environ()
	for name, value := range b.now.values {
		shell.Env = append(shell.Env, name+"="+value)
	}
	shell.Stdout, shell.Stderr = os.Stdout, os.Stderr
	if err := shell.Run(); err != nil {
		return i.fail("%s: %w", i.text, err)
	}
	return nil
}

// standIns are the files of golang's image that are taken from this machine.
func standIn(name string) (string, bool) {
	if name == "/etc/ssl/certs/ca-certificates.crt" {
		return name, true
	}
	if rest, is := strings.CutPrefix(name, "/usr/local/go/"); is {
		out, err := exec.Command("go", "env", "GOROOT").Output()
		return filepath.Join(strings.TrimSpace(string(out)), rest), err == nil
	}
	return "", false
}

func (b *builder) copy(i instruction) error {
	words := strings.Fields(i.text)
	if len(words) < 2 {
		return i.fail("wants files and where they go")
	}
	to := words[len(words)-1]
	intoFolder := strings.HasSuffix(to, "/") || to == "."
	to = path.Join("/", b.now.workdir, to)
	if path.IsAbs(words[len(words)-1]) {
		to = path.Clean(words[len(words)-1])
	}
	if from, is := i.flags["from"]; is {
		return b.copyFrom(i, from, words[:len(words)-1], to, intoFolder)
	}
	for _, what := range words[:len(words)-1] {
		if what == "." {
			if err := b.copyContext(to); err != nil {
				return i.fail("%w", err)
			}
			continue
		}
		if err := copyFile(filepath.Join(b.context, what), b.target(to, what, intoFolder)); err != nil {
			return i.fail("%w", err)
		}
	}
	return nil
}

func (b *builder) copyFrom(i instruction, from string, files []string, to string, intoFolder bool) error {
	source, is := b.stages[from]
	if !is {
		return i.fail("--from=%s: there is no such stage", from)
	}
	for _, what := range files {
		file := source.root + what
		if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
			there, is := standIn(what)
			if !is {
				return i.fail("%s: stage %s has not made it, and it is no file of %s that the plain steps know", what, from, source.base)
			}
			file = there
		}
		if err := copyFile(file, b.target(to, what, intoFolder)); err != nil {
			return i.fail("%w", err)
		}
	}
	return nil
}

func (b *builder) target(to, what string, intoFolder bool) string {
	if intoFolder {
		to = path.Join(to, path.Base(what))
	}
	return b.now.root + to
}

// copyContext copies everything that .dockerignore does not name.
func (b *builder) copyContext(to string) error {
	return filepath.WalkDir(b.context, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(b.context, file)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(b.ignore, func(pattern string) bool { ok, err := path.Match(pattern, name); return ok && err == nil }) {
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() {
			return nil
		}
		return copyFile(file, filepath.Join(b.now.root+to, name))
	})
}

// ignored reads the patterns of a .dockerignore.
func ignored(file string) ([]string, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var patterns []string
	for n, line := range strings.Split(string(text), "\n") {
		line = strings.Trim(strings.TrimSpace(line), "/")
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if strings.HasPrefix(line, "!") || strings.Contains(line, "**") {
			return nil, fmt.Errorf("%s:%d: %q: the plain steps know neither ! nor **", file, n+1, line)
		}
		patterns = append(patterns, line)
	}
	return patterns, nil
}

func copyFile(from, to string) error {
	about, err := os.Stat(from)
	if err != nil {
		return err
	}
	if !about.Mode().IsRegular() {
		return fmt.Errorf("%s is no file", from)
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	return os.WriteFile(to, content, about.Mode().Perm()|0o444)
}

// removeAll removes a folder in which some folders cannot be written.
func removeAll(dir string) error {
	walked := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(file, 0o755)
		}
		return err
	})
	return errors.Join(walked, os.RemoveAll(dir))
}
