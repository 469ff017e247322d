package simulator

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// trusting returns a client that trusts the authority in dir and nobody else.
func trusting(t *testing.T, dir string) *http.Client {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		t.Fatalf("%s holds no certificate", AuthorityFile)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// serveTLS serves h with a certificate of dir's authority, and returns https://localhost:port.
func serveTLS(t *testing.T, dir string, h http.Handler) string {
	t.Helper()
	certificate, err := LocalCertificate(dir, time.Now(), "localhost", "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return strings.Replace(server.URL, "127.0.0.1", "localhost", 1)
}

func TestLocalCertificate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made", "here")
	hello := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
	for range 2 { // the second start has the same authority
		address := serveTLS(t, dir, hello)
		for _, to := range []string{address, strings.Replace(address, "localhost", "127.0.0.1", 1)} {
			resp, err := trusting(t, dir).Get(to)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
		}
	}
	first, err := os.ReadFile(filepath.Join(dir, AuthorityFile))
	if err != nil {
		t.Fatal(err)
	}
	serveTLS(t, dir, hello)
	again, err := os.ReadFile(filepath.Join(dir, AuthorityFile))
	if err != nil || string(again) != string(first) {
		t.Errorf("the authority has changed: %v", err)
	}
	stranger := t.TempDir()
	if _, err := LocalCertificate(stranger, time.Now(), "localhost"); err != nil {
		t.Fatal(err)
	}
	if resp, err := trusting(t, stranger).Get(serveTLS(t, dir, hello)); err == nil {
		_ = resp.Body.Close()
		t.Error("another authority is trusted")
	}
	key, err := os.Stat(filepath.Join(dir, authorityKeyFile))
	if err != nil || key.Mode().Perm() != 0o600 {
		t.Errorf("the authority's key: %v, %v", key.Mode(), err)
	}

	if _, err := LocalCertificate(dir, time.Now().AddDate(11, 0, 0), "localhost"); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("an old authority: got %v", err)
	}
	if _, err := LocalCertificate(dir, time.Now()); err == nil {
		t.Error("a certificate for nobody")
	}
	if err := os.Remove(filepath.Join(dir, authorityKeyFile)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, authorityKeyFile), []byte("no key"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := LocalCertificate(dir, time.Now(), "localhost"); err == nil {
		t.Error("a broken authority is taken")
	}
}
