package chartcheck

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// readUnit reads a systemd unit: all values of each key.
func readUnit(t *testing.T, file string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		if key, value, is := strings.Cut(strings.TrimSpace(line), "="); is && !strings.HasPrefix(key, "#") {
			found[key] = append(found[key], value)
		}
	}
	return found
}

const unitFile = "../../deploy/paythread.service"

// TestUnit: the service gets the time that stopping takes, and no right that it
// does not need.
func TestUnit(t *testing.T) {
	t.Parallel()
	unit := readUnit(t, unitFile)
	var seconds int
	least := stopping(t).Within + stopping(t).Drain
	if _, err := fmt.Sscan(strings.Join(unit["TimeoutStopSec"], ""), &seconds); err != nil || time.Duration(seconds)*time.Second <= least {
		t.Errorf("TimeoutStopSec is %q, want more than %v", unit["TimeoutStopSec"], least)
	}
	for key, want := range map[string]string{
		"NoNewPrivileges": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "PrivateTmp": "yes", "PrivateDevices": "yes",
		"CapabilityBoundingSet": "", "MemoryDenyWriteExecute": "yes", "SystemCallArchitectures": "native", "Restart": "always",
	} {
		if !slices.Equal(unit[key], []string{want}) {
			t.Errorf("%s is %q, want %q", key, unit[key], want)
		}
	}
}

// TestUnitBySystemd: systemd itself understands every line, and counts little
// that the service may.
func TestUnitBySystemd(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if _, debian := exec.LookPath("apt-get"); debian == nil {
			t.Fatal("systemd-analyze is missing: run scripts/install-test-tools")
		}
		t.Skip("this system has no systemd; TestUnit looks at the unit all the same")
	}
	program, err := gateway()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(unitFile)
	if err != nil {
		t.Fatal(err)
	}
	look := func(text string) string {
		file := filepath.Join(t.TempDir(), "paythread.service")
		write(t, file, strings.ReplaceAll(text, "/usr/local/bin/paythread", program))
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", file).CombinedOutput()
		if err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		// In tenths.
		if out, err := exec.CommandContext(t.Context(), analyze, "security", "--offline=yes", "--threshold=15", file).CombinedOutput(); err != nil {
			return fmt.Sprintf("%v: %s", err, out)
		}
		return string(out)
	}
	if out := look(string(text)); out != "" {
		t.Error(out)
	}
	for _, c := range [][2]string{{"ProtectSystem=strict", "ProtectSystems=strict"}, {"User=paythread\nGroup=paythread\n", ""}, {"Type=exec", "Type=nothing"}} {
		if out := look(strings.Replace(string(text), c[0], c[1], 1)); out == "" {
			t.Errorf("%q in the place of %q is not found", c[1], c[0])
		}
	}
}

// proxied is a proxy of deploy/, running before a gateway that is played.
type proxied struct {
	url    string
	client *http.Client
	seen   chan *http.Request
	more   chan struct{} // each lets the stream go on by an event
}

// behind serves what the gateway would and returns its address.
func behind(t *testing.T) (string, *proxied) {
	t.Helper()
	p := &proxied{seen: make(chan *http.Request, 10), more: make(chan struct{})}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/events" {
			n, err := io.Copy(io.Discard, r.Body)
			p.seen <- r
			_, _ = fmt.Fprintf(w, "%d %v", n, err) // the proxy is there, or the test sees it
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for n := 1; ; n++ {
			_, _ = fmt.Fprintf(w, "id: %d\n\n", n) // as above
			w.(http.Flusher).Flush()
			select {
			case <-p.more:
			case <-r.Context().Done():
				return
			}
		}
	}))
	t.Cleanup(server.Close)
	return strings.TrimPrefix(server.URL, "http://"), p
}

// certificate writes a key and its certificate for 127.0.0.1, and returns a
// client that trusts it.
func (p *proxied) certificate(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	server := httptest.NewUnstartedServer(nil)
	server.StartTLS()
	made := server.TLS.Certificates[0]
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate())
	server.Close()
	p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "example.com"}, ForceAttemptHTTP2: true}}
	t.Cleanup(p.client.CloseIdleConnections)
	key, err := x509.MarshalPKCS8PrivateKey(made.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: made.Certificate[0]})))
	write(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	return certFile, keyFile
}

// freePort returns a port that was free a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // it was only asked for its port
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// start runs a proxy until the test ends and waits until it answers.
func (p *proxied) start(t *testing.T, port, program string, env []string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var log bytes.Buffer
	c := exec.CommandContext(ctx, program, args...)
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	c.Env, c.Stdout, c.Stderr = append(os.Environ(), env...), &log, &log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	t.Cleanup(func() { cancel(); <-ended })
	p.url = "https://127.0.0.1:" + port
	deadline := time.After(30 * time.Second)
	for {
		err := p.answers(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case err := <-ended:
			ended <- err // for the cleanup
			t.Fatalf("%s ended: %v\n%s", program, err, log.String())
		case <-deadline:
			cancel()
			<-ended
			ended <- nil // for the cleanup
			t.Fatalf("%s does not answer: %v\n%s", program, err, log.String())
		}
	}
}

// answers asks whether a call comes through.
func (p *proxied) answers(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/up", nil)
	if err != nil {
		return err
	}
	req.Host = "example.com"
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close() // its head tells enough
	select {
	case <-p.seen:
		return nil
	default:
		return fmt.Errorf("%s, and not from the gateway", resp.Status)
	}
}

// examine tries what the gateway needs of a proxy.
func (p *proxied) examine(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"/v1/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	stream.Host = "example.com"
	resp, err := p.client.Do(stream)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }() // read as far as the test wants
	lines := bufio.NewScanner(resp.Body)
	for n := 1; n <= 3; n++ {
		// The next event is not sent before this one has come.
		for lines.Scan() && lines.Text() == "" {
		}
		if want := fmt.Sprintf("id: %d", n); lines.Text() != want {
			t.Fatalf("of the stream came %q, %v; want %q", lines.Text(), lines.Err(), want)
		}
		select {
		case p.more <- struct{}{}:
		case <-ctx.Done():
			t.Fatal("the gateway's end of the stream is gone")
		}
	}
	for _, c := range []struct{ bytes, status int }{{3_900_000, http.StatusOK}, {4_500_000, 0}} {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+"/webhooks/acme", bytes.NewReader(make([]byte, c.bytes)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Forwarded-For", "203.0.113.9")
		req.Host = "example.com"
		resp, err := p.client.Do(req)
		if err != nil {
			if c.status == 0 {
				continue // cut off
			}
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // read to its end
		if c.status == 0 {
			if resp.StatusCode < 400 && strings.HasSuffix(string(answer), "<nil>") {
				t.Errorf("%d bytes came through", c.bytes)
			}
			continue
		}
		if err != nil || resp.StatusCode != c.status || string(answer) != fmt.Sprintf("%d <nil>", c.bytes) {
			t.Errorf("%d bytes: %s %q, %v", c.bytes, resp.Status, answer, err)
			continue
		}
		got := <-p.seen
		if from := got.Header.Get("X-Forwarded-For"); from != "127.0.0.1" {
			t.Errorf("X-Forwarded-For is %q, want the caller's own address and nothing that it claims", from)
		}
		if got.Host != "example.com" {
			t.Errorf("the host is %q, want the one that was called", got.Host)
		}
	}
}

// readDeploy reads a file of deploy/ and puts other texts into it, each of which
// has to be there.
func readDeploy(t *testing.T, name string, replace map[string]string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	for old, by := range replace {
		form := regexp.MustCompile(old)
		if !form.MatchString(text) {
			t.Fatalf("%s has no %s", name, old)
		}
		text = form.ReplaceAllString(text, by)
	}
	return text
}

// withoutProxy ends a test that has no proxy to try. In CI there is one.
func withoutProxy(t *testing.T, name string) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatalf("%s is not installed: scripts/install-test-tools does", name)
	}
	t.Skipf("%s is not installed: scripts/install-test-tools does", name)
}

// TestNginx: with deploy/nginx.conf nginx hands streams on as they come, takes
// webhooks of 4 MB, and says whose call it is.
func TestNginx(t *testing.T) {
	t.Parallel()
	nginx, err := exec.LookPath("nginx")
	if err != nil {
		nginx, err = exec.LookPath("/usr/sbin/nginx") // which is not in everyone's PATH
	}
	if err != nil {
		withoutProxy(t, "nginx")
	}
	backend, p := behind(t)
	dir, port := t.TempDir(), freePort(t)
	cert, key := p.certificate(t, dir)
	plain := freePort(t)
	write(t, filepath.Join(dir, "html", challenge), "yes, ours")
	site := readDeploy(t, "nginx.conf", map[string]string{
		`(?m)^ *listen \[::\].*\n`:       "",
		`listen 80;`:                     "listen 127.0.0.1:" + plain + ";",
		`/var/www/html`:                  filepath.Join(dir, "html"),
		`listen 443 `:                    "listen 127.0.0.1:" + port + " ",
		`server 127\.0\.0\.1:8080;`:      "server " + backend + ";",
		`pay\.acme\.example;`:            "example.com;",
		`/etc/letsencrypt/.*/fullch.*;`:  cert + ";",
		`/etc/letsencrypt/.*/privkey.*;`: key + ";",
		`/var/log/nginx/`:                dir + "/",
	})
	var temp strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&temp, "  %s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	user := ""
	if os.Getuid() == 0 { // or its workers would be one who cannot enter the folder
		user = "user root;\n"
	}
	file := filepath.Join(dir, "nginx.conf")
	write(t, file, user+"daemon off;\npid "+filepath.Join(dir, "pid")+";\nerror_log stderr;\nevents {}\nhttp {\n  access_log off;\n"+temp.String()+site+"}\n")
	p.start(t, port, nginx, nil, "-p", dir, "-e", "stderr", "-c", file)
	p.examine(t)
	for _, address := range []string{"/p/hushhush", "/r/hushhush", "/pay/hushhush/state", "/receipts/hushhush.pdf", "/webhooks/acme-wa/hushhush", "/v1/conversations?phone=hushhush"} {
		if resp, err := p.client.Get(p.url + address); err == nil {
			_ = resp.Body.Close() // only what is logged of it counts
		}
	}
	var logged string
	for end := time.Now().Add(30 * time.Second); !strings.Contains(logged, "GET /v1/conversations"); time.Sleep(10 * time.Millisecond) {
		b, err := os.ReadFile(filepath.Join(dir, "access.log"))
		if logged = string(b); time.Now().After(end) {
			t.Fatalf("nginx does not log its calls: %v\n%s", err, logged)
		}
	}
	for _, path := range []string{"/p/...", "/pay/...", "/receipts/...", "/webhooks/acme-wa/..."} {
		if !strings.Contains(logged, "GET "+path+`"`) {
			t.Errorf("%s is not logged", path)
		}
	}
	if strings.Contains(logged, "hush") {
		t.Errorf("nginx logs what nobody should read there:\n%s", logged)
	}
	p.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for file, want := range map[string]string{challenge: "yes, ours", "/pay/x": "https://example.com/pay/x"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+plain+file, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Host = "example.com"
		resp, err := p.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close() // read to its end
		if got := resp.Header.Get("Location"); got != want && string(answer) != want {
			t.Errorf("without TLS, of %s came %s %q %q, %v; want %q", file, resp.Status, got, answer, err, want)
		}
	}
}

// challenge is where certbot shows whose host it is.
const challenge = "/.well-known/acme-challenge/x"

// TestCaddy: the same of deploy/Caddyfile.
func TestCaddy(t *testing.T) {
	t.Parallel()
	caddy, err := exec.LookPath("caddy")
	if err != nil {
		withoutProxy(t, "caddy")
	}
	backend, p := behind(t)
	dir, port := t.TempDir(), freePort(t)
	cert, key := p.certificate(t, dir)
	site := readDeploy(t, "Caddyfile", map[string]string{
		`pay\.acme\.example \{`: "https://example.com:" + port + " {\n\tbind 127.0.0.1\n\ttls " + cert + " " + key,
		`127\.0\.0\.1:8080`:     backend,
	})
	file := filepath.Join(dir, "Caddyfile")
	write(t, file, "{\n\tadmin off\n\tauto_https disable_redirects\n}\n"+site)
	p.start(t, port, caddy, []string{"HOME=" + dir, "XDG_DATA_HOME=" + dir, "XDG_CONFIG_HOME=" + dir}, "run", "--adapter", "caddyfile", "--config", file)
	p.examine(t)
}
