package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// check looks at what no single field can tell, reports it to r, and completes
// c. What a field's own problem explains is not reported again.
func (c *Config) check(r *reader) {
	if r.fine("listen", "admin_listen") && meet(c.Listen, c.AdminListen) {
		r.problem("admin_listen", "is the same as listen, want a port of its own")
	}
	if r.fine("log.level") && c.Log.Level > slog.LevelInfo {
		r.hint("log.level", "leaves out what is written with info: the audit of what moved money, and the life of each payment request")
	}
	if r.fine("redis") {
		c.Redis.check(r)
	}
	c.LinkKeys.check(r)
	if r.fine("timings.send_within", "timings.recover_after") && c.Timings.RecoverAfter <= c.Timings.SendWithin {
		r.problem("timings.recover_after", "%s is wrong, want more than send_within (%s): what may still be charged cannot be asked for",
			formatDuration(c.Timings.RecoverAfter), formatDuration(c.Timings.SendWithin))
	}
	if r.fine("timings.late_ask_after") && !slices.IsSorted(c.Timings.LateAskAfter) {
		r.problem("timings.late_ask_after", "is out of order, want the shorter first: each is counted from the start of the attempt")
	}
	if r.fine("agent_sessions.ttl", "agent_sessions.max_ttl") && c.AgentSessions.MaxTTL < c.AgentSessions.TTL {
		r.problem("agent_sessions.max_ttl", "is less than ttl (%s), want at least that", formatDuration(c.AgentSessions.TTL))
	}
	c.checkMerchants(r)
	c.checkProduction(r)
	c.index()
}

// meet tells that not both addresses can be listened on.
func meet(a, b string) bool {
	hostA, portA, _ := net.SplitHostPort(a) // they were checked
	hostB, portB, _ := net.SplitHostPort(b)
	numberA, _ := strconv.Atoi(portA)
	numberB, _ := strconv.Atoi(portB)
	all := func(host string) bool { return host == "" || host == "0.0.0.0" || host == "::" }
	return numberA == numberB && numberA != 0 && (all(hostA) || all(hostB) || strings.EqualFold(hostA, hostB))
}

// checkProduction refuses what only a sandbox may have.
func (c *Config) checkProduction(r *reader) {
	production := func(m *MerchantConfig) bool { return !m.Sandbox }
	if !slices.ContainsFunc(c.Merchants, production) {
		return
	}
	if r.fine("retention.dedupe") && c.Retention.Dedupe < 7*day {
		r.problem("retention.dedupe", "%s is wrong, want at least 7d in production: Meta repeats its webhooks for 7 days", formatDuration(c.Retention.Dedupe))
	}
	if r.fine("retention.feed") && c.Retention.Feed < day {
		r.problem("retention.feed", "%s is wrong, want at least 24h in production", formatDuration(c.Retention.Feed))
	}
	for i, m := range c.Merchants {
		if !production(m) {
			continue
		}
		path := fmt.Sprintf("merchants[%d]", i)
		checkEncrypted(r, path+".platform", m.Platform.Settings)
		for j, s := range m.Senders {
			checkEncrypted(r, fmt.Sprintf("%s.senders[%d]", path, j), s.Settings)
		}
	}
	for _, path := range r.unfilled {
		for i, m := range c.Merchants {
			if production(m) && strings.HasPrefix(path, fmt.Sprintf("merchants[%d].", i)) {
				r.problem(path, "is still the placeholder of the example, want the merchant's own")
			}
		}
	}
}

// checkEncrypted refuses addresses of companies to which secrets would go in the
// clear, but for those of this network: a proxy may encrypt.
func checkEncrypted(r *reader, path string, settings Settings) {
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		address, isHTTP := strings.CutPrefix(strings.ToLower(settings[name]), "http://")
		if strings.HasSuffix(name, "_url") && isHTTP && r.fine(path+"."+name) && !isInside(hostOf("http://"+address)) {
			r.problem(path+"."+name, "%q is wrong, want https:// in production: our secrets go there", shorten(withoutUserinfo(settings[name])))
		}
	}
}

func (c *Config) checkMerchants(r *reader) {
	merchantIDs, senderIDs, keys := map[string]string{}, map[string]string{}, map[string]string{}
	for i, m := range c.Merchants {
		path := fmt.Sprintf("merchants[%d]", i)
		unique(r, merchantIDs, m.ID, path+".id", "is the id of %s too, want one for each merchant")
		names := map[string]string{}
		for j, k := range m.APIKeys {
			p := fmt.Sprintf("%s.api_keys[%d]", path, j)
			unique(r, names, k.Name, p+".name", "is the name of %s too, want one for each key")
			unique(r, keys, k.Secret.Reveal(), p+".secret", "is the key of %s too: a key tells whose it is, want one for each")
		}
		channels := map[string]string{}
		for j, s := range m.Senders {
			p := fmt.Sprintf("%s.senders[%d]", path, j)
			unique(r, senderIDs, s.ID, p+".id", "is the id of %s too, want one for each sender of all merchants")
			unique(r, channels, string(s.Channel), p+".channel", "is the channel of %s too, want at most one sender for each channel of a merchant")
			if s.ID == cybersourcePath {
				r.problem(p+".id", "%q is taken: CyberSource's notifications come to that path; want another name", s.ID)
			}
			s.check(r, p)
		}
		m.checkCurrencies(r, path+".currencies")
		m.checkCardTesting(r, path+".card_testing")
		m.checkTexts(r, path)
		m.checkCallbacks(r, path, c.Callbacks.AllowPrivate)
		if r.fine(path + ".platform") {
			m.checkPlatform(r, path+".platform")
		}
	}
}

// unique reports that the value at path was seen before.
func unique(r *reader, seen map[string]string, value, path, message string) {
	if value == "" || !r.fine(path) {
		return // missing or wrong, and reported so
	}
	if first, twice := seen[value]; twice {
		r.problem(path, message, parentOf(first))
		return
	}
	seen[value] = path
}

func (s *SenderConfig) check(r *reader, path string) {
	reg, ok := providerNamed(s.Provider)
	if !ok || s.Channel == "" {
		return // reported with the field
	}
	if !slices.Contains(reg.Channels, s.Channel) {
		r.problem(path+".channel", "%q is wrong, provider %s does %s", s.Channel, s.Provider, orList(channelNames(reg.Channels)))
		return
	}
	if r.anyWithin(path) || !r.fine(parentOf(parentOf(path))+".public_url") { // of which the adapter makes its webhook's address
		return
	}
	if _, err := newProvider(s, nil, &http.Client{}, slog.New(slog.DiscardHandler)); err != nil {
		r.problem(path, "%s", oneLine(err))
	}
}

func (m *MerchantConfig) checkPlatform(r *reader, path string) {
	reg, ok := platformNamed(m.Platform.Name)
	if !ok || r.anyWithin(path) || !r.fine(parentOf(path)+".country") {
		return // reported with the field
	}
	for _, s := range reg.Settings {
		if s.Name == merchantsCountry && m.Platform.Settings[s.Name] == "" {
			m.Platform.Settings[s.Name] = m.Country
		}
	}
	if _, err := newPlatform(m, nil, &http.Client{}, slog.New(slog.DiscardHandler)); err != nil {
		r.problem(path, "%s", oneLine(err))
	}
}

// checkCurrencies refuses one that stands there twice.
func (m *MerchantConfig) checkCurrencies(r *reader, path string) {
	for p := range r.bad {
		if strings.HasPrefix(p, path) {
			return // those that are wrong are not in the list, so the places are not known
		}
	}
	for i, code := range m.Currencies {
		if first := slices.Index(m.Currencies, code); first < i {
			r.problem(fmt.Sprintf("%s[%d]", path, i), "%s is there twice, keep one", code)
		}
	}
}

// checkCardTesting refuses waits that would never be reached.
func (m *MerchantConfig) checkCardTesting(r *reader, path string) {
	l := m.CardTesting
	if r.fine(path+".first_delay", path+".longest_delay") && l.LongestDelay < l.FirstDelay {
		r.problem(path+".longest_delay", "%s is wrong, want at least first_delay (%s)", formatDuration(l.LongestDelay), formatDuration(l.FirstDelay))
		return
	}
	if r.fine(path+".longest_delay", path+".window") && l.LongestDelay > l.Window {
		r.problem(path+".longest_delay", "%s is wrong, want at most window (%s): older declines make nobody wait", formatDuration(l.LongestDelay), formatDuration(l.Window))
	}
}

// anyWithin tells that a key at or below path has a problem.
func (r *reader) anyWithin(path string) bool {
	for p := range r.bad {
		if p == path || strings.HasPrefix(p, path+".") {
			return true
		}
	}
	return false
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

func (l *LinkKeysConfig) check(r *reader) {
	defer func() {
		if current, previous := l.Files(); r.fine("link_keys", "link_keys.dir") {
			r.read.look(current, previous)
		}
	}()
	l.Dir, l.CurrentFile, l.PreviousFile = r.near("link_keys.dir", l.Dir), r.near("link_keys.current_file", l.CurrentFile), r.near("link_keys.previous_file", l.PreviousFile)
	switch {
	case !r.fine("link_keys"):
	case l.Dir == "" && l.CurrentFile == "":
		r.problem("link_keys", "is missing, give dir or current_file; \"paythread keys new --dir DIR\" makes the keys")
	case l.Dir != "" && (l.CurrentFile != "" || l.PreviousFile != ""):
		r.problem("link_keys.dir", "is given beside current_file or previous_file, keep one way")
	}
}

// near makes a path that stands in the file start where the file lies; one from
// the environment starts where the process does.
func (r *reader) near(key, path string) string {
	if path == "" || filepath.IsAbs(path) || r.places[key].variable != "" {
		return path
	}
	return filepath.Join(filepath.Dir(r.file), path)
}

// check takes the URL apart, settles the mode and looks at the parts together.
func (c *RedisConfig) check(r *reader) {
	if !r.fine("redis.url", "redis.addresses", "redis.mode", "redis.database", "redis.tls.enabled") {
		return
	}
	switch {
	case c.url != "":
		for _, key := range c.besideURL() {
			r.problem("redis."+key, "is given beside redis.url, which says it all; keep one way")
		}
		u, err := parseRedisURL(c.url.Reveal())
		if err != nil {
			return // reported with the field, which used the same parser
		}
		c.Addresses, c.MasterName, c.Username, c.Password, c.Database = u.addresses, u.masterName, u.username, u.password, u.database
		c.TLS.Enabled = c.TLS.Enabled || u.tls
		c.url = ""
	case len(c.Addresses) == 0:
		r.problem("redis", "is missing, give redis.url (redis://host:port) or redis.addresses")
		return
	}
	if c.Mode == RedisAuto {
		c.Mode = c.guessMode()
	}
	switch {
	case c.Mode == RedisSingle && len(c.Addresses) > 1:
		r.problem("redis.mode", "is single and there are %d addresses, want one, or another mode", len(c.Addresses))
	case c.Mode == RedisSentinel && c.MasterName == "":
		r.problem("redis.master_name", "is missing: Sentinels are asked for a master by its name")
	case c.Mode != RedisSentinel && c.MasterName != "":
		r.problem("redis.master_name", "is for Sentinels, and mode is %s", c.Mode)
	case c.Mode == RedisCluster && c.Database != 0:
		r.problem("redis.database", "want 0: a Cluster has no other database")
	}
	if c.Mode != RedisSentinel && (c.Sentinel.Username != "" || c.Sentinel.Password != "") {
		r.problem("redis.sentinel", "is for Sentinels, and mode is %s", c.Mode)
	}
	c.TLS.check(r)
}

func (c *RedisConfig) guessMode() RedisMode {
	switch {
	case c.MasterName != "":
		return RedisSentinel
	case len(c.Addresses) > 1:
		return RedisCluster
	}
	return RedisSingle
}

// besideURL returns the keys that are set although the URL says them.
func (c *RedisConfig) besideURL() []string {
	var keys []string
	for _, k := range []struct {
		key string
		set bool
	}{
		{"addresses", len(c.Addresses) > 0},
		{"master_name", c.MasterName != ""},
		{"username", c.Username != ""},
		{"password", c.Password != ""},
		{"database", c.Database != 0},
	} {
		if k.set {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// redisURL is what a redis:// URL says.
type redisURL struct {
	addresses  []string
	masterName string
	username   string
	password   Secret
	database   int
	tls        bool
}

// parseRedisConfig reads a URL alone, as given to --redis-url, with the
// defaults for the rest.
func parseRedisConfig(rawURL string) (RedisConfig, error) {
	u, err := parseRedisURL(rawURL)
	if err != nil {
		return RedisConfig{}, err
	}
	c := RedisConfig{
		Addresses: u.addresses, MasterName: u.masterName, Username: u.username, Password: u.password, Database: u.database,
		TLS: TLSConfig{Enabled: u.tls}, Prefix: "pt", Partitions: 16, PoolSize: 32,
	}
	c.Mode = c.guessMode()
	return c, nil
}

func aRedisURL(s string) (string, error) {
	_, err := parseRedisURL(s)
	return s, err
}

// parseRedisURL reads redis://[user:password@]host[:port][/database] with
// further addresses in addr and a Sentinel's master in master_name. Its errors
// repeat nothing of the URL, which may hold a password.
func parseRedisURL(s string) (redisURL, error) {
	var r redisURL
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" || u.Hostname() == "" || u.Fragment != "" {
		return r, errors.New("want redis://[username:password@]host:port[/database], or rediss:// for TLS; special characters of a password as %XX")
	}
	r.tls = u.Scheme == "rediss"
	r.username = u.User.Username()
	password, _ := u.User.Password()
	r.password = Secret(password)
	if path := strings.Trim(u.Path, "/"); path != "" {
		if r.database, err = strconv.Atoi(path); err != nil || r.database < 0 {
			return r, errors.New("want a number as the path, which names the database")
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return r, errors.New("want only addr and master_name behind the question mark")
	}
	for name := range query {
		if name != "addr" && name != "master_name" {
			return r, errors.New("want only addr and master_name behind the question mark")
		}
	}
	r.masterName = query.Get("master_name")
	for _, a := range append([]string{u.Host}, query["addr"]...) {
		if !strings.Contains(a, ":") || strings.HasSuffix(a, "]") {
			a = net.JoinHostPort(strings.Trim(a, "[]"), "6379")
		}
		if a, err = aHostPort(a); err != nil {
			return r, err
		}
		r.addresses = append(r.addresses, a)
	}
	return r, nil
}

// TLSConfig is how a server's certificate is checked and ours is shown.
type TLSConfig struct {
	Enabled    bool
	CAFile     string
	CertFile   string
	KeyFile    string
	ServerName string
}

func (t *TLSConfig) check(r *reader) {
	t.CAFile, t.CertFile, t.KeyFile = r.near("redis.tls.ca_file", t.CAFile), r.near("redis.tls.cert_file", t.CertFile), r.near("redis.tls.key_file", t.KeyFile)
	for key, file := range map[string]string{"ca_file": t.CAFile, "cert_file": t.CertFile, "key_file": t.KeyFile} {
		if file != "" {
			r.read.look(file)
			r.fixed["redis.tls."+key] = r.read[file] // Redis is connected to with what stands in it
		}
	}
	given := t.CAFile != "" || t.CertFile != "" || t.KeyFile != "" || t.ServerName != ""
	switch {
	case !t.Enabled && given:
		r.problem("redis.tls.enabled", "is false although other keys of tls are set, want true")
	case (t.CertFile == "") != (t.KeyFile == ""):
		r.problem("redis.tls", "want cert_file and key_file, or neither")
	default:
		if _, err := t.Client(); err != nil {
			r.problem("redis.tls", "%v", err)
		}
	}
}

// Client returns the settings of a TLS client, nil where TLS is off.
func (t *TLSConfig) Client() (*tls.Config, error) {
	if !t.Enabled {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca_file: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("ca_file: %s holds no certificate in PEM form", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("cert_file and key_file: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}
