package twilio

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strings"
)

// The forms of Habits.Port.
const (
	PortAdd       = "add"       // the scheme's own port stands in the signed address
	PortDrop      = "drop"      // it does not, although the address has it
	PortAlternate = "alternate" // one webhook so, the next one so
)

// Habits are how Twilio writes its webhooks. The zero value is the usual way: a
// form, signed with the address as configured.
type Habits struct {
	JSON  bool   `json:"json"`  // JSON bodies, whose hash stands in the address
	GET   bool   `json:"get"`   // all parameters in the query
	Extra bool   `json:"extra"` // parameters that nobody knows yet, one of them empty
	Port  string `json:"port"`  // of the signed address; empty as configured, else PortAdd, PortDrop, PortAlternate
}

// SetHabits changes how webhooks are written from now on.
func (s *Simulator) SetHabits(h Habits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.habits = h
}

// written is a webhook ready to be posted, and what of it is signed.
type written struct {
	method, address, contentType string
	body                         []byte
	signed                       string
	signedForm                   url.Values
}

// write puts a webhook's parameters into bytes, by the habits of now.
func (s *Simulator) write(method, address string, form url.Values) written {
	s.mu.Lock()
	h := s.habits
	s.posted++
	odd := s.posted%2 == 1
	s.mu.Unlock()
	if h.Extra {
		form = maps.Clone(form)
		form.Set("BrandNewParameter", "né/ü +1")
		form.Set("EmptyNewParameter", "")
	}
	w := written{method: http.MethodPost}
	switch {
	case h.GET || method == http.MethodGet:
		w.method = http.MethodGet
		w.address = withQuery(address, form.Encode())
	case h.JSON:
		w.contentType = "application/json"
		w.body = jsonOf(form)
		hash := sha256.Sum256(w.body)
		w.address = withQuery(address, "bodySHA256="+hex.EncodeToString(hash[:]))
	default:
		w.contentType = "application/x-www-form-urlencoded; charset=UTF-8"
		w.body = []byte(form.Encode())
		w.address, w.signedForm = address, form
	}
	w.signed = signedAddress(w.address, h.Port, odd)
	return w
}

func withQuery(address, query string) string {
	if strings.Contains(address, "?") {
		return address + "&" + query
	}
	return address + "?" + query
}

func jsonOf(form url.Values) []byte {
	members := make(map[string]string, len(form))
	for name := range form {
		members[name] = form.Get(name)
	}
	body, err := json.Marshal(members)
	if err != nil {
		panic(err) // a map of texts always encodes
	}
	return body
}

// signedAddress writes the scheme's own port into an address, or takes it out.
// Any other port stays as it is.
func signedAddress(address, port string, odd bool) string {
	scheme, rest, ok := strings.Cut(address, "://")
	own := map[string]string{"http": ":80", "https": ":443"}[scheme]
	if !ok || own == "" || port == "" {
		return address
	}
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	host := rest[:end]
	add := port == PortAdd || (port == PortAlternate && odd)
	bare := strings.TrimSuffix(host, own)
	name := bare[strings.LastIndexByte(bare, ']')+1:] // behind an IPv6 address
	name = name[strings.LastIndexByte(name, '@')+1:]  // behind a user and password
	switch {
	case strings.Contains(name, ":"): // a port of its own
	case add:
		host = bare + own
	default:
		host = bare
	}
	return scheme + "://" + host + rest[end:]
}
