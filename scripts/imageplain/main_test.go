package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The world that the Dockerfile is followed in: a program that stands for the
// gateway and takes its commands, and the repository's own Dockerfile,
// .dockerignore and scripts/build.
const standInProgram = `package main

import (
	"fmt"
	"os"
)

var version string

func main() {
	switch os.Args[1] + " " + os.Args[len(os.Args)-1] {
	case "version version":
		fmt.Println("paythread", version)
	case "config example":
		fmt.Print("listen: \":8080\"\nadmin_listen: \":9090\"\n")
	default:
		if text, err := os.ReadFile(os.Args[len(os.Args)-1]); err == nil && string(text) == "listen: \":8080\"\nadmin_listen: \":9090\"\n" {
			return
		}
		if err := os.Mkdir(os.Args[len(os.Args)-1], 0o700); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}
`

const repository = "../.."

func standInContext(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	put := func(name, text string) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	put("go.mod", "module standin\n\ngo 1.26\n")
	put("go.sum", "")
	put("gateway/main.go", standInProgram)
	put("paythread.yaml", "app_secret: hunter2\n")
	put("keys/current.jwk", "hunter2")
	put("secrets/acme/oms-api-key", "hunter2")
	put("docs/page.md", "a page")
	for _, name := range []string{".dockerignore", "scripts/build"} {
		put(name, readFile(t, filepath.Join(repository, name)))
	}
	return dir
}

func readFile(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// lookAroundProgram builds this program as the plain steps run it: static.
func lookAroundProgram(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "look-around")
	c := exec.CommandContext(t.Context(), "go", "build", "-o", file, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

// follow builds and inspects an image as main does.
func follow(t *testing.T, dockerfile, from, self string) error {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
	})
	made, err := build(t.Context(), dockerfile, from, dir, "v1.2.3-test")
	if err != nil {
		return err
	}
	for _, name := range []string{"paythread.yaml", "keys/current.jwk", "secrets/acme/oms-api-key", "docs/page.md"} {
		if _, err := os.Stat(filepath.Join(dir, "stage0", "src", name)); err == nil {
			t.Errorf("%s was copied, although .dockerignore names it", name)
		}
	}
	_, err = inspect(t.Context(), made, "v1.2.3-test", filepath.Join(dir, "mounted"), self)
	return err
}

// TestDockerfile: the repository's Dockerfile makes an image that is right, and
// each mistake in it is found.
func TestDockerfile(t *testing.T) {
	t.Parallel()
	dockerfile := readFile(t, filepath.Join(repository, "Dockerfile"))
	from, self := standInContext(t), lookAroundProgram(t)
	t.Run("as it is", func(t *testing.T) {
		t.Parallel()
		if err := follow(t, dockerfile, from, self); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct{ name, old, new, want string }{
		{"an instruction that is not known", "EXPOSE 8080 9090", "HEALTHCHECK CMD /paythread", "nothing that the plain steps can do"},
		{"a flag that is not known", "COPY --from=build /out", "COPY --chmod=755 --from=build /out", "--chmod"},
		{"a command that installs", "RUN go mod download", "RUN apt-get install -y tzdata", "scripts/build alone"},
		{"a second command", "RUN go mod download", "RUN go mod download && curl x", "scripts/build alone"},
		{"a command in the empty image", "ENV ZONEINFO", "RUN go mod download\nENV ZONEINFO", "nothing to run with"},
		{"another Go", "golang:1.26", "golang:1.19", "this machine has"},
		{"another base", "FROM scratch", "FROM debian:13", "golang and scratch"},
		{"a stage that is not there", "--from=build /out", "--from=builder /out", "no such stage"},
		{"a file that was not made", "--from=build /out/paythread", "--from=build /out/gateway", "has not made it"},
		{"a file that is too much", "USER", "COPY --from=build /src/go.mod /etc/\nUSER", "the image holds /etc/go.mod"},
		{"root", "USER 65532:65532", "USER 0:0", "not root's"},
		{"a user by name", "USER 65532:65532", "USER nonroot", "want two numbers"},
		{"no user", "USER 65532:65532", "", "want two numbers"},
		{"a shell as entrypoint", `ENTRYPOINT ["/paythread"]`, "ENTRYPOINT /paythread", "a shell"},
		{"another entrypoint", `ENTRYPOINT ["/paythread"]`, `ENTRYPOINT ["/bin/paythread"]`, "want /paythread"},
		{"no version on the label", `version="$VERSION"`, `version="latest"`, "image.version"},
		{"no version in the binary", `scripts/build "$VERSION"`, "scripts/build dev", "it says"},
		{"no authorities", "/etc/ssl/certs/\n", "/etc/certs/\n", "the image holds"},
		{"time zones where nobody looks", "ENV ZONEINFO=/usr/share/zoneinfo.zip", "ENV ZONEINFO=/usr/zoneinfo.zip", "time zones are not found"},
		{"a file that is not there", "COPY go.mod go.sum ./", "COPY go.mod go.lock ./", "go.lock"},
		{"a build for the machine that builds", "GOOS=$TARGETOS GOARCH=$TARGETARCH ", "", "for the machine that builds"},
		{"a platform that nobody declares", "ARG TARGETARCH\n", "", "for the machine that builds"},
		{"a version that nobody declares", "ARG VERSION=dev\nARG TARGETOS", "ARG TARGETOS", "exit status"},
		{"a build by emulation", "--platform=$BUILDPLATFORM ", "", "by emulation"},
		{"an image for the machine that builds", "FROM scratch", "FROM --platform=$BUILDPLATFORM scratch", "for the machine that builds"},
		{"authorities in the place of their folder", "/etc/ssl/certs/\n", "/etc/ssl/certs\n", "the image holds"},
		{"an entrypoint that knows better", `["/paythread"]`, `["/paythread", "serve"]`, "want /paythread"},
		{"a port that nobody listens on", "EXPOSE 8080 9090", "EXPOSE 8080 9100", "9100"},
		{"a command of its own", `ENTRYPOINT ["/paythread"]`, "ENTRYPOINT [\"/paythread\"]\nCMD [\"serve\"]", "nothing that the plain steps can do"},
		{"a context that is not copied", "COPY . .", "COPY go.mod .", "exit status"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			planted := strings.Replace(dockerfile, c.old, c.new, 1)
			if planted == dockerfile {
				t.Fatalf("the Dockerfile has no %q to plant the mistake in", c.old)
			}
			err := follow(t, planted, from, self)
			if err == nil {
				t.Fatal("nothing was found")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("found %q, want %q in it", err, c.want)
			}
		})
	}
}

// TestWhatCannotRunInAnEmptyImage: a program that needs a loader is found, and
// so are an image that is missing a file and one whose files cannot be trusted.
func TestWhatCannotRunInAnEmptyImage(t *testing.T) {
	t.Parallel()
	if err := static("/bin/sh"); err == nil || !strings.Contains(err.Error(), "dynamic loader") {
		t.Skipf("this machine's shell is no example of a dynamic program: %v", err)
	}
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "paythread"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := static(filepath.Join(root, "paythread")); err == nil {
		t.Error("a script passes for a program")
	}
	if err := os.Chmod(filepath.Join(root, "paythread"), os.ModeSetuid|0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := holdsOnly(root, []string{"/paythread"}); err == nil || !strings.Contains(err.Error(), "changes its user") {
		t.Errorf("of a program that becomes another user: %v", err)
	}
}

// TestDockerignore: what the plain steps would read otherwise than an engine is
// refused.
func TestDockerignore(t *testing.T) {
	t.Parallel()
	for _, line := range []string{"!docs", "**/testdata"} {
		file := filepath.Join(t.TempDir(), ".dockerignore")
		if err := os.WriteFile(file, []byte("# first\n"+line+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := ignored(file); err == nil || !strings.Contains(err.Error(), ":2:") {
			t.Errorf("%s: %v", line, err)
		}
	}
}
