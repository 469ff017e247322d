package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// errAddressRefused says that a host leads to where callbacks do not go.
var errAddressRefused = errors.New("the address is not on the public internet")

// mostURL bounds an endpoint's address.
const mostURL = 500

// checkCallbackURL tells what is wrong with an endpoint's address, as far as can
// be told without looking it up. Where it really leads is looked at each time a
// connection is made.
func checkCallbackURL(raw string, allowPrivate bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || len(raw) > mostURL || strings.ContainsFunc(raw, func(r rune) bool { return r <= ' ' || r > '~' }):
		return fmt.Errorf("want a URL of at most %d visible ASCII characters", mostURL)
	case u.Scheme != "https" && (u.Scheme != "http" || !allowPrivate):
		return errors.New("want https://")
	case u.Hostname() == "" || u.User != nil || u.Fragment != "" || strings.Contains(raw, "#") || u.Opaque != "":
		return errors.New("want https://host/path, without a user and without a fragment")
	case strings.ContainsFunc(u.Hostname(), func(r rune) bool { return r > '~' }):
		return errors.New("want a host in ASCII, such as xn--bcher-kva.example")
	case !portFits(u):
		return errors.New("want a port from 1 to 65535, or none")
	}
	if allowPrivate {
		return nil
	}
	host := u.Hostname()
	if a, err := netip.ParseAddr(host); err == nil && !publicAddress(a) || isLoopback(host) {
		return errors.New("want a host on the public internet")
	}
	return nil
}

// portFits tells whether there can be a port such as an address has.
func portFits(u *url.URL) bool {
	if u.Port() == "" {
		return !strings.HasSuffix(u.Host, ":")
	}
	n, err := strconv.ParseUint(u.Port(), 10, 16)
	return err == nil && n > 0
}

// reserved are the networks that callbacks do not go to, of those that are
// inside the space that is handed out: IANA's registries of special-purpose
// addresses.
var reserved = func() []netip.Prefix {
	var list []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8",       // this network
		"10.0.0.0/8",      // private
		"100.64.0.0/10",   // behind carriers' NAT
		"127.0.0.0/8",     // loopback
		"169.254.0.0/16",  // link-local, and clouds' metadata
		"172.16.0.0/12",   // private
		"192.0.0.0/24",    // IETF protocols
		"192.0.2.0/24",    // documentation
		"192.88.99.0/24",  // 6to4 relays
		"192.168.0.0/16",  // private
		"198.18.0.0/15",   // benchmarks
		"198.51.100.0/24", // documentation
		"203.0.113.0/24",  // documentation
		"224.0.0.0/3",     // multicast, reserved and broadcast
		"2001::/23",       // IETF protocols, Teredo among them
		"2001:db8::/32",   // documentation
		"2002::/16",       // 6to4: an IPv4 address inside
		"3fff::/20",       // documentation
	} {
		list = append(list, netip.MustParsePrefix(s))
	}
	return list
}()

// globalUnicast is all that is handed out of IPv6. Outside it lie loopback,
// link-local, unique local, multicast, IPv4 in its several disguises and NAT64
// (64:ff9b::/96), whose last half is an IPv4 address.
var globalUnicast = netip.MustParsePrefix("2000::/3")

// publicAddress tells whether an address is one of the public internet.
func publicAddress(a netip.Addr) bool {
	a = a.Unmap()
	if a.Zone() != "" || a.Is6() && !globalUnicast.Contains(a) {
		return false
	}
	for _, r := range reserved {
		if r.Contains(a) {
			return false
		}
	}
	return true
}

// onlyPublic is a dialer's Control: it sees the address that is really
// connected to, after every name was looked up.
func onlyPublic(_ context.Context, _, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !publicAddress(to.Addr()) {
		return errAddressRefused
	}
	return nil
}

// callbackClient makes the calls to endpoints. It follows no redirects, knows no
// proxy and, unless allowed, connects to no address that is not public. Each
// call brings its own deadline.
func callbackClient(allowPrivate bool, resolver *net.Resolver) *http.Client {
	dialer := &net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second, Resolver: resolver}
	if !allowPrivate {
		dialer.ControlContext = onlyPublic
	}
	return &http.Client{
		Transport: &http.Transport{
			Proxy: nil, DialContext: dialer.DialContext, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, TLSHandshakeTimeout: 10 * time.Second,
			MaxIdleConnsPerHost: 4, MaxIdleConns: 256, IdleConnTimeout: time.Minute,
			MaxResponseHeaderBytes: 64 << 10, DisableCompression: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// callbackHost names where an endpoint is, for logs: path and query may be secret.
func callbackHost(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	return u.Host
}
