package chartcheck

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chartutil"
)

// follower follows a page about deployment: it writes the files that the page
// says to write and runs the commands that it says to run, in a folder that
// stands for a clone, with stand-ins for what would change the machine or needs
// a cluster. What our own program is told is real.
type follower struct {
	t      *testing.T
	clone  string // where commands are run
	root   string // stands for the machine's root
	calls  string // file in which stand-ins note what they were asked
	output strings.Builder
}

// standIns are the stand-ins' texts. Each notes how it was called first.
var standIns = map[string]string{
	"docker": "", "make": "", "apt-get": "", "systemctl": "", "useradd": "", "chown": "", "journalctl": "", "curl": "", "nginx": "", "certbot": "",
	// sudo runs what it is given.
	"sudo": `if [ "$1" = -u ]; then shift 2; fi; exec "$@"`,
	// install cannot give files to a user that is not there.
	"install": `args=(); while [ $# -gt 0 ]; do case $1 in -o|-g) shift 2;; *) args+=("$1"); shift;; esac; done; exec /usr/bin/install "${args[@]}"`,
	// helm insists on the files that it is given.
	"helm": `while [ $# -gt 0 ]; do case $1 in helm) test -f helm/Chart.yaml || exit 1;; --values) test -f "$2" || exit 1;; esac; shift; done`,
	// kubectl keeps the files of Secrets; one that exists cannot be made again.
	"kubectl": `
case " $* " in
*" create secret generic "*)
	while [ "$1" != generic ]; do shift; done
	case " $* " in *" --dry-run=client "*) cat "${3#--from-file=}"/* ; exit;; esac
	mkdir "$STATE/$2" && cp "${3#--from-file=}"/* "$STATE/$2";;
*" apply --filename=- "*) test -n "$(cat)";;
esac`,
}

func follow(t *testing.T, page string, rooted bool) *follower {
	t.Helper()
	f := &follower{t: t, clone: t.TempDir(), root: t.TempDir()}
	f.calls = filepath.Join(f.root, "calls")
	program, err := gateway()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range standIns {
		f.program(filepath.Join(f.root, "bin", name), `echo "`+name+` $*" >> "$CALLS"`+"\n"+text)
	}
	f.program(filepath.Join(f.clone, "scripts", "build"), `cp "`+program+`" "$2"`)
	f.program(filepath.Join(f.clone, "scripts", "version"), "echo v1.0.0")
	for _, dir := range []string{"helm", "deploy"} {
		real, err := filepath.Abs(filepath.Join("../..", dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(real, filepath.Join(f.clone, dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"etc/systemd/system", "etc/nginx/conf.d", "etc/caddy", "etc/redis", "usr/local/bin", "state"} {
		if err := os.MkdirAll(filepath.Join(f.root, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	write(t, filepath.Join(f.root, "etc/redis/redis.conf"), "bind 127.0.0.1 -::1\nappendonly no\n")
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	f.read(string(text), rooted)
	return f
}

func (f *follower) program(file, text string) {
	f.t.Helper()
	write(f.t, file, "#!/bin/bash\nset -eu\n"+text+"\n")
	if err := os.Chmod(file, 0o755); err != nil {
		f.t.Fatal(err)
	}
}

var (
	writeForm = regexp.MustCompile("^Write `([^`]+)`:$")
	rowForm   = regexp.MustCompile("^\\| `([^`]+)` \\|")
	// pathForm is a path in a command that belongs to the machine.
	pathForm = regexp.MustCompile(`(^|\s)(/etc/|/usr/local/)`)
)

// read goes through a page from the top.
func (f *follower) read(text string, rooted bool) {
	f.t.Helper()
	toWrite, kind, block, files := "", "", "", false
	for line := range strings.Lines(text) {
		trimmed := strings.TrimRight(line, "\n")
		switch {
		case strings.HasPrefix(trimmed, "```") && kind == "":
			kind, block = strings.TrimPrefix(trimmed, "```"), ""
		case trimmed == "```" && kind == "sh":
			f.run(block, rooted)
			kind = ""
		case trimmed == "```":
			if toWrite == "" {
				f.t.Errorf("a block of %s that the page does not say where to write", kind)
			} else {
				write(f.t, f.place(toWrite), block)
			}
			kind, toWrite = "", ""
		case kind != "":
			block += line
		case writeForm.MatchString(trimmed):
			toWrite = writeForm.FindStringSubmatch(trimmed)[1]
		case strings.HasPrefix(trimmed, "| file | holds |"):
			files = true
		case files && rowForm.MatchString(trimmed):
			file := rowForm.FindStringSubmatch(trimmed)[1]
			write(f.t, f.place(file), secretFor(f.t, filepath.Base(file), len(file)))
		case !strings.HasPrefix(trimmed, "|"):
			files = false
		}
	}
	if kind != "" {
		f.t.Error("a block does not end")
	}
}

// place tells where a file that the page names lies.
func (f *follower) place(file string) string {
	if filepath.IsAbs(file) {
		return f.root + file
	}
	return filepath.Join(f.clone, file)
}

// run runs a block of commands, each of which has to work.
func (f *follower) run(block string, rooted bool) {
	f.t.Helper()
	if rooted {
		block = pathForm.ReplaceAllString(block, "${1}"+f.root+"$2")
	}
	var script strings.Builder
	script.WriteString("set -euo pipefail\n")
	for line := range strings.Lines(block) {
		line = strings.TrimRight(line, "\n")
		if strings.Contains(line, "paythread doctor ") {
			// Nobody outside is asked from here, and there is no Redis, which it says.
			line = strings.Replace(line, "doctor ", "doctor --local ", 1) + " || test $? -eq 1"
		}
		script.WriteString(line + "\n")
	}
	c := exec.CommandContext(f.t.Context(), "bash", "-c", script.String())
	c.Dir = f.clone
	c.Env = []string{
		"PATH=" + filepath.Join(f.root, "bin") + ":" + filepath.Join(f.root, "usr/local/bin") + ":" + os.Getenv("PATH"),
		"CALLS=" + f.calls, "STATE=" + filepath.Join(f.root, "state"), "HOME=" + f.root,
	}
	out, err := c.CombinedOutput()
	f.output.Write(out)
	if err != nil {
		f.t.Errorf("following\n%s\n%v\n%s", block, err, out)
	}
}

// called returns what a stand-in was asked, a line for each call.
func (f *follower) called(name string) []string {
	f.t.Helper()
	text, err := os.ReadFile(f.calls)
	if err != nil {
		f.t.Fatal(err)
	}
	var found []string
	for line := range strings.Lines(string(text)) {
		if rest, is := strings.CutPrefix(line, name+" "); is {
			found = append(found, strings.TrimSpace(rest))
		}
	}
	return found
}

// TestKubernetesPage follows docs/deploy-kubernetes.md: the chart takes its
// values, the gateway its configuration with the Secrets that it makes, and what
// it asks kubectl about is there.
func TestKubernetesPage(t *testing.T) {
	t.Parallel()
	f := follow(t, "../../docs/deploy-kubernetes.md", false)
	values, err := chartutil.ReadValuesFile(filepath.Join(f.clone, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := check(chartDir, values, stopping(t)); err != nil {
		t.Error(err)
	}
	for _, name := range references(values) {
		_, err := os.Stat(filepath.Join(f.root, "state", name))
		if err != nil && name != "pay-acme-example-tls" { // what the page wants to be there already
			t.Errorf("the values name %s, which the page does not make", name)
		}
	}
	r, err := renderRelease("paythread", chartDir, values)
	if err != nil {
		t.Fatal(err)
	}
	all, err := decode(r.manifests)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(f.root, "state", "paythread-link-keys", "current.jwk")); err != nil {
		t.Error(err)
	}
	f.gatewayTakes(all)
	there := []string{"deployment/" + all.deployments[0].Name, "job/" + all.jobs[0].Name}
	asked := 0
	for _, call := range f.called("kubectl") {
		for word := range strings.FieldsSeq(call) {
			if strings.HasPrefix(word, "deployment/") || strings.HasPrefix(word, "job/") {
				asked++
				if !slices.Contains(there, word) {
					t.Errorf("the page speaks of %s, and there are %q", word, there)
				}
			}
		}
	}
	if asked < 2 {
		t.Errorf("the page asks of %d objects: this test does not see them", asked)
	}
	for _, call := range f.called("helm") {
		if !strings.Contains(call, "paythread") || !strings.Contains(call, "--namespace paythread") {
			t.Errorf("helm %s: not the page's release and namespace", call)
		}
	}
}

// gatewayTakes runs config check and the doctor on what the page's pods have
// mounted.
func (f *follower) gatewayTakes(all objects) {
	f.t.Helper()
	root := f.t.TempDir()
	spec := all.deployments[0].Spec.Template.Spec
	for _, m := range spec.Containers[0].VolumeMounts {
		for _, v := range spec.Volumes {
			if v.Name != m.Name || v.Secret == nil {
				continue
			}
			to := strings.Replace(m.MountPath, "/etc/paythread", root, 1)
			if err := os.CopyFS(to, os.DirFS(filepath.Join(f.root, "state", v.Secret.SecretName))); err != nil {
				f.t.Error(err)
			}
			files, err := filepath.Glob(filepath.Join(to, "*"))
			if err != nil {
				f.t.Error(err)
			}
			for _, file := range files {
				if err := os.Chmod(file, os.FileMode(*v.Secret.DefaultMode)); err != nil {
					f.t.Error(err)
				}
			}
		}
	}
	config := filepath.Join(root, "config", "paythread.yaml")
	for _, c := range all.configMaps {
		if c.Name == all.deployments[0].Name {
			write(f.t, config, strings.ReplaceAll(c.Data["paythread.yaml"], "/etc/paythread", root))
		}
	}
	if out, err := run(f.t, nil, "config", "check", "--config", config); err != nil {
		f.t.Errorf("config check: %v\n%s", err, out)
	}
	out, _ := run(f.t, nil, "doctor", "--local", "--config", config) // without Redis it fails
	if !linkKeysFine.MatchString(out) {
		f.t.Errorf("the doctor does not find the link keys:\n%s", out)
	}
}

var linkKeysFine = regexp.MustCompile(`(?m)^ok +link keys`)

// TestMachinePage follows docs/deploy-vm.md: the service's files are where the
// unit looks for them, only root can write them, and the gateway takes them.
func TestMachinePage(t *testing.T) {
	t.Parallel()
	f := follow(t, "../../docs/deploy-vm.md", true)
	if out := f.output.String(); !strings.Contains(out, "The configuration is right") || !linkKeysFine.MatchString(out) {
		t.Errorf("config check and doctor say:\n%s", out)
	}
	unit := readUnit(t, filepath.Join(f.root, "etc/systemd/system/paythread.service"))
	for _, line := range slices.Concat(unit["ExecStart"], unit["ExecStartPre"]) {
		for word := range strings.FieldsSeq(line) {
			if filepath.IsAbs(word) {
				if _, err := os.Stat(f.root + word); err != nil {
					t.Errorf("the unit runs %s: %v", line, err)
				}
			}
		}
	}
	for _, file := range []string{"paythread.yaml", "keys/current.jwk", "secrets/oms-api-key", "secrets/meta-app-secret"} {
		about, err := os.Stat(filepath.Join(f.root, "etc/paythread", file))
		if err != nil {
			t.Error(err)
		} else if about.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has the mode %v, want it readable to its owner alone", file, about.Mode())
		}
	}
	if text, err := os.ReadFile(filepath.Join(f.root, "etc/redis/redis.conf")); err != nil || !strings.Contains(string(text), "\nappendonly yes\n") {
		t.Errorf("redis.conf: %v\n%s", err, text)
	}
	for _, file := range []string{"etc/nginx/conf.d/paythread.conf", "etc/caddy/Caddyfile"} {
		if _, err := os.Stat(filepath.Join(f.root, file)); err != nil {
			t.Error(err)
		}
	}
	if calls := fmt.Sprint(f.called("chown")); !strings.Contains(calls, "-R paythread:paythread "+f.root+"/etc/paythread") {
		t.Errorf("the files' owner is set by %s, want the service's user", calls)
	}
	if calls := fmt.Sprint(f.called("useradd")); !strings.Contains(calls, "paythread") || !slices.Equal(unit["User"], []string{"paythread"}) {
		t.Errorf("the unit's user is %q, and the page makes %s", unit["User"], calls)
	}
}

// TestPagesAreFollowed: a page with a mistake does not pass.
func TestPagesAreFollowed(t *testing.T) {
	t.Parallel()
	program, err := gateway()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, page, want string }{
		{"a command that fails", "```sh\ntest -f values.yaml\n```\n", "following"},
		{"a command of ours that does not exist", "```sh\nscripts/build v1 ./paythread\n./paythread keys make\n```\n", "following"},
		{"a file that nobody placed", "```yaml\na: b\n```\n", "does not say where"},
		{"a block without an end", "```sh\ntrue\n", "does not end"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			file := filepath.Join(t.TempDir(), "page.md")
			write(t, file, c.page)
			// A test of its own, in a process of its own, because it has to fail.
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOnePage$")
			cmd.Env = append(os.Environ(), "CHARTCHECK_PAGE="+file, "CHARTCHECK_GATEWAY="+program)
			out, err := cmd.CombinedOutput()
			if err == nil || !strings.Contains(string(out), c.want) {
				t.Errorf("%v\n%s\nwant %q", err, out, c.want)
			}
		})
	}
}

// TestOnePage follows the page that TestPagesAreFollowed names.
func TestOnePage(t *testing.T) {
	page := os.Getenv("CHARTCHECK_PAGE")
	if page == "" {
		t.Skip("runs for TestPagesAreFollowed")
	}
	follow(t, page, true)
}
