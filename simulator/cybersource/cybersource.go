package cybersource

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"paythread/simulator/faults"
)

// Merchant is one CyberSource account and its REST shared-secret key. One key serves both HTTP
// Signature and JWT.
type Merchant struct {
	ID           string
	KeyID        string
	SharedSecret string // base64, as the Business Center shows it
}

// Config says what the simulator plays. Zero durations mean the default in the comment.
type Config struct {
	PublicURL        string // scheme and host that browsers reach it under, without a path
	Merchants        []Merchant
	ContextLife      time.Duration // of a capture context: 15 minutes
	TokenLife        time.Duration // of a transient token: 15 minutes
	SearchDelay      time.Duration // until search and details show a transaction: 60 seconds; negative: at once
	DateTolerance    time.Duration // of an HTTP Signature's date: 5 minutes
	AllowHTTPOrigins bool          // take http, loopback and IP addresses as target origins, which CyberSource does not
	// DuplicateCodeBlock is the account setting that refuses a clientReferenceInformation.code again
	// within 15 minutes of its success.
	DuplicateCodeBlock bool
	// Processor behind the accounts: "vpc", "paymentech" or empty. It decides which amounts are
	// triggers; vpc also refuses a transactionId that was used before.
	Processor string
	// SharedKeys, when positive, hands so many one-time keys round among the contexts instead of
	// making one for each, which takes a tenth of a second of processor time. They and the key that
	// signs contexts are then the same for all such simulators of the process. For tests only.
	SharedKeys int
	// ReviewsAllowReversals lets a payment be reversed while reviewers have it, which CyberSource does
	// for some accounts and not for others.
	ReviewsAllowReversals bool
	// Subscriptions are told what happens, from the start. More are made with the REST API.
	Subscriptions []Subscription
	// NotifyAfter is how long a notification waits first: not at all. NotifyRetryAfter stands for each
	// minute of a subscription's retry policy: 1 minute.
	NotifyAfter      time.Duration
	NotifyRetryAfter time.Duration
	Now              func() time.Time
	Log              *slog.Logger
}

// Simulator is CyberSource in memory. It is safe for concurrent use. Where there are subscriptions,
// notifications run in the background until Close.
type Simulator struct {
	cfg     Config
	now     func() time.Time
	log     *slog.Logger
	faults  *faults.Set
	origin  string
	byKey   map[string]*account
	signing signingKey
	shared  []*rsa.PrivateKey
	library asset

	mu       sync.Mutex
	contexts map[string]*captureContext // by kid of the one-time key
	frames   map[string]*frame
	tokens   map[string]*transientToken // by jti
	seenJTI  map[string]time.Time       // request JWTs, until they expire
	swept    time.Time
	ledger   ledger
	searches searchStore
	notify   notifier
}

// account is a merchant with its key decoded.
type account struct {
	id    string
	keyID string
	key   []byte
}

// New checks the configuration and makes the key that signs capture contexts.
func New(cfg Config, set *faults.Set) (*Simulator, error) {
	if set == nil {
		return nil, errors.New("cybersource: a fault set is needed")
	}
	public, err := url.Parse(cfg.PublicURL)
	if err != nil || public.Host == "" || (public.Scheme != "http" && public.Scheme != "https") || strings.Trim(public.Path, "/") != "" {
		return nil, fmt.Errorf("cybersource: PublicURL %q is not scheme://host", cfg.PublicURL)
	}
	switch cfg.Processor {
	case "", processorVPC, processorPaymentech:
	default:
		return nil, fmt.Errorf("cybersource: Processor %q is not known", cfg.Processor)
	}
	setDefault(&cfg.ContextLife, 15*time.Minute)
	setDefault(&cfg.TokenLife, 15*time.Minute)
	setDefault(&cfg.SearchDelay, time.Minute)
	setDefault(&cfg.DateTolerance, 5*time.Minute)
	setDefault(&cfg.NotifyRetryAfter, time.Minute)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Simulator{
		cfg: cfg, now: cfg.Now, log: cfg.Log, faults: set,
		origin:   public.Scheme + "://" + public.Host,
		byKey:    map[string]*account{},
		contexts: map[string]*captureContext{},
		frames:   map[string]*frame{},
		tokens:   map[string]*transientToken{},
		seenJTI:  map[string]time.Time{},
		ledger:   newLedger(),
		searches: newSearchStore(),
		library:  clientLibrary(),
		notify:   newNotifier(set),
	}
	ids := map[string]bool{}
	for _, m := range cfg.Merchants {
		key, err := base64.StdEncoding.DecodeString(m.SharedSecret)
		switch {
		case m.ID == "" || m.KeyID == "":
			return nil, errors.New("cybersource: a merchant needs an ID and a KeyID")
		case err != nil || len(key) == 0:
			return nil, fmt.Errorf("cybersource: the shared secret of merchant %q is not base64", m.ID)
		case ids[m.ID] || s.byKey[m.KeyID] != nil:
			return nil, fmt.Errorf("cybersource: merchant %q or its key is listed twice", m.ID)
		}
		ids[m.ID] = true
		s.byKey[m.KeyID] = &account{id: m.ID, keyID: m.KeyID, key: key}
	}
	if cfg.SharedKeys > 0 {
		shared, err := keysOfProcess.first(1 + cfg.SharedKeys)
		if err != nil {
			return nil, err
		}
		s.signing.key, s.shared = shared[0], shared[1:]
	} else if s.signing.key, err = newRSAKey(); err != nil {
		return nil, err
	}
	s.signing.kid = strings.ToLower(randomText(upperAlphanumerics, 2))
	for _, sub := range cfg.Subscriptions {
		if err := s.subscribe(sub); err != nil {
			return nil, err
		}
	}
	nameOutcomes(set)
	return s, nil
}

func setDefault(d *time.Duration, value time.Duration) {
	if *d == 0 {
		*d = value
	}
}

// Register adds every route to mux. They stand at the root, because signatures cover host and path.
func (s *Simulator) Register(mux *http.ServeMux) {
	signed := func(pattern, name string, read reader) { mux.Handle(pattern, s.serve(name, true, read)) }
	signed("POST /uc/v1/sessions", callSessions, s.readSession)
	signed("POST /pts/v2/payments", callPayments, s.readPayment)
	signed("POST /pts/v2/payments/{id}/captures", callCaptures, s.readCapture)
	signed("POST /pts/v2/payments/{id}/reversals", callReversals, s.readReversal)
	signed("POST /pts/v2/payments/{id}/refunds", callRefunds, s.readRefund)
	signed("POST /pts/v2/captures/{id}/refunds", callRefunds, s.readRefund)
	signed("POST /pts/v2/payments/{id}/voids", callVoids, s.readVoid)
	signed("POST /pts/v2/captures/{id}/voids", callVoids, s.readVoid)
	signed("POST /pts/v2/refunds/{id}/voids", callVoids, s.readVoid)
	signed("POST /pts/v2/reversals", callReversals, s.readTimeoutReversal)
	signed("POST /pts/v2/voids", callVoids, s.readTimeoutVoid)
	signed("POST /tss/v2/searches", callSearches, s.readSearch)
	signed("GET /tss/v2/searches/{id}", callSearches, s.readSavedSearch)
	signed("GET /tss/v2/transactions/{id}", callTransactions, s.readDetails)

	signed("GET /pts/v2/payments/{id}", callRead, s.readOnePayment)
	s.registerSubscriptions(signed)

	mux.Handle("POST /flex/v2/tokens", s.serve("cybersource.tokens", false, s.readTokenRequest))
	mux.Handle("POST /flex/v2/complete", s.serve("cybersource.complete", false, s.readComplete))
	mux.HandleFunc("GET /flex/v2/public-keys/{kid}", s.servePublicKey)
	mux.HandleFunc("POST /uc/v1/clients", s.serveClient)
	mux.HandleFunc("GET /uc/v1/frames/{id}", s.serveFrame)
	mux.HandleFunc("GET /uc/v1/assets/{version}/{file}", s.serveAsset)

	mux.HandleFunc("POST /cybersource/transient-tokens", s.serveTransientToken)
	mux.HandleFunc("GET /cybersource/transactions", s.serveTransactions)
	mux.HandleFunc("POST /cybersource/advance", s.serveAdvance)
	mux.HandleFunc("GET /cybersource/test-cards", s.serveTestCards)
	s.registerControl(mux)

	for _, prefix := range []string{"/pts/", "/tss/", "/uc/", "/flex/", "/kms/", "/notification-subscriptions/"} {
		mux.HandleFunc(prefix, func(w http.ResponseWriter, _ *http.Request) {
			s.write(w, newCorrelationID(), answer{status: http.StatusNotFound, body: map[string]any{"response": map[string]any{"rmsg": "Resource not found"}}})
		})
	}
}

// answer is a response before it is written. A string body is sent as it is, anything else as JSON.
type answer struct {
	status      int
	body        any
	contentType string
}

// call is one request, read and authenticated.
type call struct {
	r             *http.Request
	body          []byte
	merchant      *account // nil on routes that browsers call
	told          *outcome // what a fault rule says the answer is to be
	correlationID string
}

// operation is what a request asks for. With commit false it only says whether it would be refused;
// with commit true it checks again, since a fault may have held the call meanwhile, and does it.
// Either runs under the simulator's lock.
type operation func(commit bool) (a answer, ok bool)

// reader turns a request into its reference and its operation, or refuses it with an answer.
type reader func(*call) (ref string, op operation, refusal *answer)

const maxBody = 1 << 20

// serve is the way of every call that a fault can touch: take the fault, authenticate, validate,
// fault before, effect, fault after, answer.
func (s *Simulator) serve(name string, signed bool, read reader) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		w := &statusWriter{ResponseWriter: rw}
		c := &call{r: r, correlationID: newCorrelationID()}
		w.Header().Set("v-c-correlation-id", c.correlationID)
		if !signed {
			allowAnyOrigin(w)
		}
		fault := s.faults.Take(name)
		if word, ok := fault.Outcome(); ok {
			if o, known := findOutcome(name, word); known {
				c.told = &o
			}
		}
		var ref string
		// Deferred, because a fault may end the handler with a panic that cuts the connection.
		defer func() {
			s.faults.Log(faults.Call{At: s.now(), Call: name, Method: r.Method, Path: r.URL.Path, Status: w.status, Ref: ref})
		}()
		var err error
		if c.body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody)); err != nil {
			s.write(w, c.correlationID, answer{status: http.StatusRequestEntityTooLarge})
			return
		}
		if signed {
			c.merchant, err = s.authenticate(r, c.body)
			if err != nil {
				s.log.Warn("authentication refused", "call", name, "reason", err.Error())
				s.write(w, c.correlationID, authenticationFailed)
				return
			}
		}
		var op operation
		var refusal *answer
		ref, op, refusal = read(c)
		if refusal != nil {
			s.write(w, c.correlationID, *refusal)
			return
		}
		if a, ok := s.locked(op, false); !ok {
			s.write(w, c.correlationID, a)
			return
		}
		if c.told != nil {
			fault.SetHeaders(w.Header())
			s.write(w, c.correlationID, s.act(name, *c.told, op))
			return
		}
		if fault.Before(w, r) {
			return
		}
		a, ok := s.locked(op, true)
		if ok && fault.After(w, r) {
			return
		}
		s.write(w, c.correlationID, a)
	}
}

// act carries out a call whose outcome a rule has named.
func (s *Simulator) act(name string, o outcome, op operation) answer {
	if o.refuses() {
		return s.refusal(o)
	}
	if name == callPayments {
		a, _ := s.locked(op, true) // pay knows the outcome by itself, and its answer is right either way
		return a
	}
	var done answer
	if o.charged {
		var ok bool
		if done, ok = s.locked(op, true); !ok {
			return done
		}
	}
	return s.told(o, done)
}

func (s *Simulator) locked(op operation, commit bool) (answer, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sweep()
	return op(commit)
}

// sweep forgets what has expired, at most once a minute. The caller holds the lock.
func (s *Simulator) sweep() {
	now := s.now()
	if now.Sub(s.swept) < time.Minute {
		return
	}
	s.swept = now
	for jti, until := range s.seenJTI {
		if now.After(until) {
			delete(s.seenJTI, jti)
		}
	}
	// A token may outlive its context, and its signature is checked with the context's key.
	keep := s.cfg.TokenLife + time.Minute
	for kid, c := range s.contexts {
		if now.After(c.expires.Add(keep)) {
			delete(s.contexts, kid)
		}
	}
	for id, f := range s.frames {
		if now.After(f.context.expires.Add(keep)) {
			delete(s.frames, id)
		}
	}
	for jti, t := range s.tokens {
		if now.After(t.expires.Add(keep)) {
			delete(s.tokens, jti)
		}
	}
}

func (s *Simulator) write(w http.ResponseWriter, correlationID string, a answer) {
	w.Header().Set("v-c-correlation-id", correlationID)
	w.Header().Set("Cache-Control", "no-store")
	var body []byte
	contentType := a.contentType
	switch b := a.body.(type) {
	case nil:
	case string:
		body = []byte(b)
	default:
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(b); err != nil {
			s.log.Error("answer not encoded", "error", err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		body = bytes.TrimSpace(buf.Bytes())
		if contentType == "" {
			contentType = "application/json"
		}
	}
	if contentType != "" {
		w.Header().Set("Content-Type", contentType)
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(body) // the client has gone; there is nobody left to tell
}

// statusWriter remembers the status for the call log. It can be hijacked, since some faults cut
// the connection.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack serves callers that ask for http.Hijacker directly.
func (w *statusWriter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(w.ResponseWriter).Hijack()
}

// allowAnyOrigin lets any page read the answer. Target origins are checked by the calls themselves.
func allowAnyOrigin(w http.ResponseWriter) { w.Header().Set("Access-Control-Allow-Origin", "*") }

const (
	upperAlphanumerics = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits             = "0123456789"
)

// randomText returns n characters of alphabet. crypto/rand never fails; a slight bias does no harm here.
func randomText(alphabet string, n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // documented never to return an error
	for i := range b {
		b[i] = alphabet[int(b[i])%len(alphabet)]
	}
	return string(b)
}

func newCorrelationID() string { return strings.ToLower(randomText("0123456789abcdef", 32)) }

// stamp writes a time as CyberSource does: UTC, whole seconds.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05Z") }
