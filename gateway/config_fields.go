package main

import (
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/language"

	"paythread/conversations"
)

// kind is how a field is written.
type kind string

// The kinds of field.
const (
	kindText     kind = "text"
	kindInteger  kind = "integer"
	kindBoolean  kind = "true or false"
	kindDuration kind = "duration"
	kindSection  kind = "section" // a mapping with fields of its own
	kindItems    kind = "items"   // a list of mappings
)

// field is one key of the configuration, bound to the place where its value
// goes. Reading, the example, the JSON Schema and docs/configuration.md all
// come from the same fields.
type field struct {
	key      string
	kind     kind   // of each element, for a list
	list     bool   // a list of scalars; set is called once for each
	def      string // default as it is written; a list's elements separated by ", "
	doc      string // what it is and why the default is what it is
	sample   string // stands in the example where there is no default
	choices  []string
	bounds   string // "from 1 to 32", for the reader of the documentation
	least    *int64 // of an integer, for the schema
	most     *int64
	secret   bool // may come from the key with "_file" behind it, and is never printed
	required bool
	fixed    bool // cannot come from the environment, because variables are named by it
	restart  bool // only a restart changes it; all else is taken over while the gateway runs

	set      func(value string) error // keeps a scalar; the error says what is wanted, never what came
	section  section                  // of a kindSection
	add      func() section           // of a kindItems: appends an element and returns its fields
	identity string                   // of a kindItems: the key whose value names an element in variables
}

// section is the fields of one mapping. Where by is set, the value of that
// field chooses which variant's fields belong to the mapping as well.
type section struct {
	fields   []field
	by       string
	chosen   func() string
	variants []variant
}

// variant is the further fields of a mapping under one choice.
type variant struct {
	name    string
	fields  []field
	samples map[string]string // what the example shows for the fields that all variants have
}

// value binds a scalar: parse turns what is written into what is kept.
func value[T any](to *T, k kind, parse func(string) (T, error), key, def, doc string) field {
	return field{key: key, kind: k, def: def, doc: doc, set: func(s string) error {
		v, err := parse(s)
		if err == nil {
			*to = v
		}
		return err
	}}
}

// values binds a list of scalars.
func values[T any](to *[]T, k kind, parse func(string) (T, error), key, def, doc string) field {
	return field{key: key, kind: k, list: true, def: def, doc: doc, set: func(s string) error {
		v, err := parse(s)
		if err == nil {
			*to = append(*to, v)
		}
		return err
	}}
}

// text binds a string that is taken as it is.
func text(to *string, key, def, doc string) field {
	return value(to, kindText, anyText, key, def, doc)
}

// secret binds a value that may come from a file and is never printed.
func secret(to *Secret, check func(string) (string, error), key, doc string) field {
	f := value(to, kindText, func(s string) (Secret, error) {
		s, err := check(s)
		return Secret(s), err
	}, key, "", doc)
	f.secret = true
	return f
}

// number binds an integer between least and most.
func number(to *int, least, most int, key, def, doc string) field {
	f := value(to, kindInteger, func(s string) (int, error) {
		n, err := strconv.Atoi(s)
		if err != nil || n < least || n > most {
			return 0, fmt.Errorf("want a whole number from %d to %d", least, most)
		}
		return n, nil
	}, key, def, doc)
	lo, hi := int64(least), int64(most)
	f.least, f.most, f.bounds = &lo, &hi, fmt.Sprintf("from %d to %d", least, most)
	return f
}

// toggle binds a boolean.
func toggle(to *bool, key, def, doc string) field {
	return value(to, kindBoolean, func(s string) (bool, error) {
		switch s {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, fmt.Errorf("want true or false")
	}, key, def, doc)
}

// duration binds a time span between least and most.
func duration(to *time.Duration, least, most time.Duration, key, def, doc string) field {
	f := value(to, kindDuration, durationBetween(least, most), key, def, doc)
	f.bounds = boundsOf(least, most)
	return f
}

// durations binds a list of time spans, each between least and most.
func durations(to *[]time.Duration, least, most time.Duration, key, def, doc string) field {
	f := values(to, kindDuration, durationBetween(least, most), key, def, doc)
	f.bounds = boundsOf(least, most)
	return f
}

// choice binds one of a few words; convert gives each its meaning.
func choice[T any](to *T, convert func(string) T, words []string, key, def, doc string) field {
	f := value(to, kindText, func(s string) (T, error) {
		if !slices.Contains(words, s) {
			var none T
			return none, fmt.Errorf("want %s", orList(words))
		}
		return convert(s), nil
	}, key, def, doc)
	f.choices = words
	return f
}

// group makes a mapping of fields one field.
func group(key, doc string, fields ...field) field {
	return field{key: key, kind: kindSection, doc: doc, section: section{fields: fields}}
}

// must marks a field that has no default and cannot be left out.
func (f field) must() field { f.required = true; return f }

// atStart marks a field, and all below it, that only a restart changes.
func (f field) atStart() field {
	f.restart = true
	for i := range f.section.fields {
		f.section.fields[i] = f.section.fields[i].atStart()
	}
	return f
}

// like gives the value that the example shows.
func (f field) like(sample string) field { f.sample = sample; return f }

// names marks the field whose value names an element of a list.
func (f field) names() field { f.fixed, f.required = true, true; return f }

func itself(s string) string { return s }

func anyText(s string) (string, error) { return s, nil }

// aShortText allows what fits on one line of a page or message.
func aShortText(s string) (string, error) {
	if strings.TrimSpace(s) == "" || len([]rune(s)) > 100 || strings.ContainsFunc(s, isControl) {
		return "", fmt.Errorf("want one line of 1 to 100 characters")
	}
	return s, nil
}

func isControl(r rune) bool { return r < ' ' || r == 0x7f }

// parseDuration reads a Go duration in which days may stand first: 8d, 1d12h.
func parseDuration(s string) (time.Duration, error) {
	days, rest := int64(0), s
	if before, after, found := strings.Cut(s, "d"); found {
		n, err := strconv.ParseInt(before, 10, 64)
		if err != nil || n < 0 || n > 36500 {
			return 0, errDuration
		}
		days, rest = n, after
		if rest == "" {
			return time.Duration(days) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(rest)
	if err != nil || d < 0 || strings.HasPrefix(rest, "+") {
		return 0, errDuration
	}
	return time.Duration(days)*24*time.Hour + d, nil
}

var errDuration = fmt.Errorf("want a duration such as 30s, 15m, 24h or 8d")

// formatDuration writes d as short as parseDuration reads it.
func formatDuration(d time.Duration) string {
	const day = 24 * time.Hour
	if d > 2*day && d%day == 0 {
		return strconv.FormatInt(int64(d/day), 10) + "d"
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func durationBetween(least, most time.Duration) func(string) (time.Duration, error) {
	return func(s string) (time.Duration, error) {
		d, err := parseDuration(s)
		if err != nil {
			return 0, err
		}
		if d < least || d > most {
			return 0, fmt.Errorf("want a duration %s", boundsOf(least, most))
		}
		return d, nil
	}
}

func boundsOf(least, most time.Duration) string {
	return "from " + formatDuration(least) + " to " + formatDuration(most)
}

// aListenAddress allows what net.Listen takes for TCP.
func aListenAddress(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || n < 0 || n > 65535 || strings.ContainsAny(host, " /") {
		return "", fmt.Errorf("want [host]:port, such as \":8080\" or 127.0.0.1:8080")
	}
	return s, nil
}

// aHostPort allows the address of one server.
func aHostPort(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.Atoi(port)
	if err != nil || perr != nil || host == "" || n < 1 || n > 65535 || strings.ContainsAny(host, " /@") {
		return "", fmt.Errorf("want host:port, such as redis.internal:6379")
	}
	return s, nil
}

// aProxy allows a network or one address.
func aProxy(s string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p.Masked(), nil
	}
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	return netip.Prefix{}, fmt.Errorf("want a network such as 10.0.0.0/8, or one address")
}

var (
	idPattern     = regexp.MustCompile(`^[a-z0-9-]{1,40}$`)
	prefixPattern = regexp.MustCompile(`^[a-z0-9_-]{1,20}$`)
)

// anID allows the identifiers of merchants and senders, which stand in paths
// and in keys of the store.
func anID(s string) (string, error) {
	if !idPattern.MatchString(s) {
		return "", fmt.Errorf("want 1 to 40 of a-z, 0-9 and -")
	}
	return s, nil
}

func aKeyPrefix(s string) (string, error) {
	if !prefixPattern.MatchString(s) {
		return "", fmt.Errorf("want 1 to 20 of a-z, 0-9, - and _")
	}
	return s, nil
}

// aPublicURL allows the base of a merchant's links: https (http on loopback
// only) and a host, nothing behind it. A slash at the end is dropped.
func aPublicURL(s string) (string, error) {
	u, err := anOriginURL(strings.TrimSuffix(s, "/"))
	if err != nil {
		return "", fmt.Errorf("want https://host[:port] without path or query (http is for loopback only)")
	}
	return u, nil
}

// anOrigin allows what browsers send as Origin.
func anOrigin(s string) (string, error) {
	u, err := anOriginURL(s)
	if err != nil {
		return "", fmt.Errorf("want an origin such as https://oms.example.com (http is for loopback only)")
	}
	return u, nil
}

// anOriginURL returns scheme://host[:port] in the spelling of browsers: lower
// case, without the scheme's own port.
func anOriginURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil {
		return "", err
	}
	host := strings.ToLower(u.Host)
	switch {
	case u.Hostname() == "" || strings.ContainsAny(host, "*, ") || u.User != nil || !isPort(u.Port()),
		u.Path != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.Contains(s, "#"):
		return "", fmt.Errorf("more or less than an origin")
	case u.Scheme == "https":
		host = strings.TrimSuffix(host, ":443")
	case u.Scheme == "http" && isLoopback(u.Hostname()):
		host = strings.TrimSuffix(host, ":80")
	default:
		return "", fmt.Errorf("neither https nor loopback")
	}
	if strings.HasSuffix(host, ":") {
		return "", fmt.Errorf("a colon without a port")
	}
	return u.Scheme + "://" + host, nil
}

// isPort allows no port, too.
func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil && n > 0
}

func isLoopback(host string) bool {
	if a, err := netip.ParseAddr(host); err == nil {
		return a.IsLoopback()
	}
	host = strings.ToLower(host)
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func aCountry(s string) (string, error) {
	r, err := language.ParseRegion(s)
	if err != nil || !r.IsCountry() || len(s) != 2 || s != strings.ToUpper(s) {
		return "", fmt.Errorf("want an ISO 3166 country code of two capital letters, such as ZA")
	}
	return s, nil
}

func aLocale(s string) (string, error) {
	t, err := language.Parse(s)
	if err != nil || t == language.Und {
		return "", fmt.Errorf("want a language tag such as en or pt-BR")
	}
	return t.String(), nil
}

func aCurrency(s string) (string, error) {
	if successor := conversations.CurrencySuccessor(s); successor != "" {
		return "", fmt.Errorf("want %s, which has taken its place", successor)
	}
	if _, ok := conversations.CurrencyDigits(s); !ok {
		return "", fmt.Errorf("want an ISO 4217 currency code, such as ZAR")
	}
	return s, nil
}

// leastAPIKey keeps keys out of reach of guessing.
const leastAPIKey = 24

func anAPIKey(s string) (string, error) {
	if len(s) < leastAPIKey || len(s) > 200 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("want %d to 200 visible ASCII characters without spaces", leastAPIKey)
	}
	return s, nil
}

// orList writes words as "a, b or c".
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
