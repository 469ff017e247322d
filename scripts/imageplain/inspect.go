package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"debug/elf"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// content is all that the image may hold.
var content = []string{"/etc/ssl/certs/ca-certificates.crt", "/paythread", "/usr/share/zoneinfo.zip"}

// mostBytes is how large the image may be: it is pulled to every node before a
// pod can start there.
const mostBytes = 60e6

// insideArgument makes this program look around in the image, instead of
// building it.
const insideArgument = "look-around"

// inspect checks a finished image: what it holds, how it is labelled, and that
// the gateway runs in it as its user, who can write nowhere. mounted is a folder
// to lay out what a deployment mounts; self is this program, which has to be
// static to run in the image as well. It returns the image's size.
func inspect(ctx context.Context, s *stage, version, mounted, self string) (int64, error) {
	uid, gid, err := numericUser(s.user)
	if err != nil {
		return 0, err
	}
	if !slices.Equal(s.entrypoint, []string{"/paythread"}) {
		return 0, fmt.Errorf("the entrypoint is %q, want /paythread", s.entrypoint)
	}
	for key, want := range map[string]string{
		"org.opencontainers.image.title": "Paythread", "org.opencontainers.image.licenses": "Apache-2.0",
		"org.opencontainers.image.version": version,
	} {
		if s.labels[key] != want {
			return 0, fmt.Errorf("the label %s is %q, want %q", key, s.labels[key], want)
		}
	}
	size, err := holdsOnly(s.root, content)
	if err != nil {
		return 0, err
	}
	if size > mostBytes {
		return 0, fmt.Errorf("the image has %d bytes, want at most %.0f", size, mostBytes)
	}
	if err := static(s.root + s.entrypoint[0]); err != nil {
		return 0, err
	}
	i := inside{ctx: ctx, image: s, root: mounted, uid: uid, gid: gid}
	if err := i.layOut(self); err != nil {
		return 0, err
	}
	return size, i.tryOut(version)
}

func numericUser(user string) (uid, gid uint32, err error) {
	u, g, _ := strings.Cut(user, ":")
	a, errU := strconv.ParseUint(u, 10, 32)
	b, errG := strconv.ParseUint(g, 10, 32)
	if errU != nil || errG != nil || a == 0 || b == 0 {
		return 0, 0, fmt.Errorf("USER %q: want two numbers, not root's: the image has no /etc/passwd, and runAsNonRoot cannot judge a name", user)
	}
	return uint32(a), uint32(b), nil
}

// holdsOnly returns the size of the files below root, if they are these.
func holdsOnly(root string, want []string) (int64, error) {
	var found []string
	var size int64
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		about, err := d.Info()
		if err != nil {
			return err
		}
		if about.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
			return fmt.Errorf("%s changes its user when it runs", file)
		}
		size += about.Size()
		found = append(found, strings.TrimPrefix(file, root))
		return nil
	})
	slices.Sort(found)
	if err == nil && !slices.Equal(found, want) {
		err = fmt.Errorf("the image holds %s, want %s", strings.Join(found, ", "), strings.Join(want, ", "))
	}
	return size, err
}

// static tells what a program would need beside itself.
func static(file string) error {
	program, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	defer func() { _ = program.Close() }() // it was only read
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("%s asks for a dynamic loader, and the image has none", path.Base(file))
		}
	}
	return nil
}

// inside runs programs in an image.
type inside struct {
	ctx      context.Context
	image    *stage
	root     string // the image with what a deployment mounts into it
	uid, gid uint32
}

const configFile = "/etc/paythread/config/paythread.yaml"

// layOut makes the root in which programs run: the image, an empty mounted
// configuration and this program, all of it not to be written.
func (i inside) layOut(self string) error {
	for _, file := range i.image.files() {
		if err := copyFile(i.image.root+file, i.root+file); err != nil {
			return err
		}
	}
	if err := copyFile(self, i.root+"/look-around"); err != nil {
		return err
	}
	if err := os.MkdirAll(i.root+path.Dir(configFile), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(i.root+configFile, nil, 0o444); err != nil {
		return err
	}
	return filepath.WalkDir(i.root, func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(file, 0o555)
		}
		return err
	})
}

func (s *stage) files() []string {
	var found []string
	_ = filepath.WalkDir(s.root, func(file string, d fs.DirEntry, err error) error { // holdsOnly has walked it without an error
		if err == nil && !d.IsDir() {
			found = append(found, strings.TrimPrefix(file, s.root))
		}
		return err
	})
	return found
}

// tryOut runs the gateway as a deployment would.
func (i inside) tryOut(version string) error {
	out, err := i.run(nil, "/paythread", "version")
	if err != nil {
		return err
	}
	if !strings.Contains(string(out), version) {
		return fmt.Errorf("it says %q of itself, want %s in it", out, version)
	}
	example, err := i.run(nil, "/paythread", "config", "example")
	if err != nil {
		return err
	}
	for _, port := range i.image.ports {
		if !strings.Contains(string(example), ":"+port) {
			return fmt.Errorf("the image exposes the port %s, and by default nothing listens there", port)
		}
	}
	if err := os.Chmod(i.root+configFile, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(i.root+configFile, example, 0o444); err != nil {
		return err
	}
	if _, err := i.run(nil, "/paythread", "config", "check", "--config", configFile); err != nil {
		return err
	}
	if out, err := i.run(nil, "/paythread", "keys", "new", "--dir", "/keys"); err == nil {
		return fmt.Errorf("it could write to the image: %s", out)
	}
	authority, err := firstAuthority(i.root + "/etc/ssl/certs/ca-certificates.crt")
	if err != nil {
		return err
	}
	_, err = i.run(authority, "/look-around", insideArgument)
	return err
}

// run runs a program in the root as the image's user, with the image's
// environment and no other.
func (i inside) run(stdin []byte, program string, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(i.ctx, time.Minute)
	defer cancel()
	command, err := i.command(ctx, program, args...)
	if err != nil {
		return nil, err
	}
	var out, complaints bytes.Buffer
	command.Dir, command.Stdin, command.Stdout, command.Stderr = "/", bytes.NewReader(stdin), &out, &complaints
	command.Env = append([]string{}, i.image.env...)
	if err := command.Run(); err != nil {
		return nil, fmt.Errorf("in the image, %s %s: %w\n%s", program, strings.Join(args, " "), err, complaints.Bytes())
	}
	return out.Bytes(), nil
}

// firstAuthority returns the first certificate of a file, in DER.
func firstAuthority(file string) ([]byte, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no certificate", file)
	}
	return block.Bytes, nil
}

// lookAround tells whether a program in the image finds what it needs there: the
// authorities to trust, one of which comes on stdin, and the time zones.
func lookAround(stdin io.Reader) error {
	der, err := io.ReadAll(stdin)
	if err != nil {
		return err
	}
	authority, err := x509.ParseCertificate(der)
	if err != nil {
		return err
	}
	_, trusted := authority.Verify(x509.VerifyOptions{CurrentTime: authority.NotAfter.Add(-time.Hour), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if trusted != nil {
		trusted = fmt.Errorf("the image's authorities are not found: %w", trusted)
	}
	_, zones := time.LoadLocation("Africa/Johannesburg")
	if zones != nil {
		zones = fmt.Errorf("the image's time zones are not found: %w", zones)
	}
	return errors.Join(trusted, zones)
}
