package cybersource

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
	"time"

	"paythread/simulator/faults"
)

// serveTransactions lists what was really done, for holding against what a merchant believes. The
// parameters merchant, code and kind narrow it.
func (s *Simulator) serveTransactions(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	list := []Transaction{}
	for _, t := range s.Transactions() {
		if matches(q.Get("merchant"), t.Merchant) && matches(q.Get("code"), t.Code) && matches(q.Get("kind"), t.Kind) {
			list = append(list, t)
		}
	}
	s.write(w, newCorrelationID(), answer{status: http.StatusOK, body: list})
}

// registerControl adds the control calls about outcomes, people and notifications.
func (s *Simulator) registerControl(mux *http.ServeMux) {
	mux.HandleFunc("GET /cybersource/outcomes", func(w http.ResponseWriter, _ *http.Request) {
		s.write(w, newCorrelationID(), answer{status: http.StatusOK, body: Outcomes()})
	})
	mux.Handle("POST /cybersource/back-office", faults.Control(s.backOffice))
	mux.HandleFunc("GET /cybersource/subscriptions", func(w http.ResponseWriter, _ *http.Request) {
		s.write(w, newCorrelationID(), answer{status: http.StatusOK, body: s.subscriptionList()})
	})
	mux.Handle("POST /cybersource/subscriptions", faults.Control(s.changeSubscriptions))
	mux.Handle("POST /cybersource/notifications", faults.Control(s.sendNotification))
}

func (s *Simulator) subscriptionList() []object {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []object{}
	for _, sub := range s.notify.subscriptions {
		shown := sub.body()
		shown["payload"], shown["nested"], shown["keyId"] = sub.Payload, sub.nested, s.notify.keys[sub.Organization].id
		list = append(list, shown)
	}
	return list
}

// subscriptionHabits are how notifications are written from now on.
type subscriptionHabits struct {
	Organization string `json:"organization"` // empty: all
	Payload      string `json:"payload"`      // inner, raw or encrypted; empty: as before
	EncryptTo    string `json:"encryptTo"`    // a public key or certificate; needs an organization
	EncryptKeyID string `json:"encryptKeyId"`
	Nested       *bool  `json:"nested"` // the facts lie in payload.data
}

func (s *Simulator) changeSubscriptions(_ *http.Request, in subscriptionHabits) (any, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if in.EncryptTo != "" {
		key, err := parsePublicKey(in.EncryptTo)
		switch {
		case err != nil:
			return nil, faults.Wrong("encryptTo", "%v", err)
		case in.Organization == "":
			return nil, faults.Wrong("organization", "is missing: whose key is it?")
		}
		s.notify.encryptTo[in.Organization] = encryptKey{in.EncryptKeyID, key}
	}
	changed := 0
	for _, sub := range s.notify.subscriptions {
		if !matches(in.Organization, sub.Organization) {
			continue
		}
		if in.Payload != "" {
			if err := s.checkPayload(sub.Organization, in.Payload); err != nil {
				return nil, faults.Wrong("payload", "must be inner, raw, or encrypted with a key to encrypt to")
			}
			sub.Payload = in.Payload
		}
		if in.Nested != nil {
			sub.nested = *in.Nested
		}
		changed++
	}
	return map[string]int{"subscriptions": changed}, nil
}

// mostRepeats bounds how often one call sends a notification.
const mostRepeats = 1000

// notificationRequest is any notification, sent at once and once.
type notificationRequest struct {
	Organization string `json:"organization"` // empty: the only subscription's
	Product      string `json:"productId"`
	Event        string `json:"eventType"`
	Payload      object `json:"payload"`
	Forged       bool   `json:"forged"` // signed with a key that is not the receiver's
	Age          string `json:"age"`    // how long ago it was signed; negative for the future
	Times        int    `json:"times"`  // how often the very same bytes are sent; once without
}

// sendNotification posts a notification that somebody made up, as CyberSource would write and sign it,
// and returns what was answered to each time.
func (s *Simulator) sendNotification(r *http.Request, in notificationRequest) (any, error) {
	var age time.Duration
	if in.Age != "" {
		var err error
		if age, err = time.ParseDuration(in.Age); err != nil {
			return nil, faults.Wrong("age", "must be a duration such as 2h")
		}
	}
	s.mu.Lock()
	var sub *subscription
	for _, x := range s.notify.subscriptions {
		if matches(in.Organization, x.Organization) && sub == nil {
			sub = x
		}
	}
	if sub == nil {
		s.mu.Unlock()
		return nil, faults.Missing("organization", "has no subscription")
	}
	e := event{product: orElse(in.Product, productPayments), kind: orElse(in.Event, "payments.authorization.status.updated"), at: s.now().Add(-age), payload: in.Payload}
	if e.payload == nil {
		e.payload = object{}
	}
	request, err := s.notificationAt(sub, e, in.Forged, 0, s.now().Add(-age))
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	statuses := []int{}
	for range min(max(in.Times, 1), mostRepeats) {
		status, err := s.transmit(r.Context(), request, "")
		if err != nil {
			return nil, err
		}
		statuses = append(statuses, status)
	}
	return map[string][]int{"statuses": statuses}, nil
}

func matches(want, have string) bool { return want == "" || want == have }

// advanceRequest moves the world on: what otherwise takes a night, a minute or a person.
type advanceRequest struct {
	Settle bool     `json:"settle"` // sends the batch; voids are refused from then on
	Index  bool     `json:"index"`  // shows everything in search now
	Accept []string `json:"accept"` // payments under review
	Reject []string `json:"reject"`
}

func (s *Simulator) serveAdvance(w http.ResponseWriter, r *http.Request) {
	id := newCorrelationID()
	var req advanceRequest
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&req); err != nil {
		s.write(w, id, answer{status: http.StatusBadRequest, body: map[string]string{"message": "takes settle, index, accept and reject"}})
		return
	}
	unknown := []string{}
	for accept, ids := range map[bool][]string{true: req.Accept, false: req.Reject} {
		for _, payment := range ids {
			if !s.DecideReview(payment, accept) {
				unknown = append(unknown, payment)
			}
		}
	}
	if len(unknown) > 0 {
		s.write(w, id, answer{status: http.StatusNotFound, body: map[string]any{"message": "not under review", "ids": unknown}})
		return
	}
	if req.Settle {
		s.Settle()
	}
	if req.Index {
		s.Index()
	}
	s.write(w, id, answer{status: http.StatusOK, body: map[string]int{"transactions": len(s.Transactions())}})
}

// serveTestCards shows the numbers with an outcome of their own: as a page to a browser, else as JSON.
func (s *Simulator) serveTestCards(w http.ResponseWriter, r *http.Request) {
	if !strings.Contains(r.Header.Get("Accept"), "text/html") {
		s.write(w, newCorrelationID(), answer{status: http.StatusOK, body: TestCards()})
		return
	}
	var page strings.Builder
	if err := testCardsPage.Execute(&page, object{"Cards": TestCards(), "Styles": assetPath("pages.css")}); err != nil {
		s.log.Error("test cards not shown", "error", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'")
	s.write(w, newCorrelationID(), answer{status: http.StatusOK, body: page.String(), contentType: "text/html; charset=utf-8"})
}

var testCardsPage = template.Must(template.New("cards.html").Funcs(template.FuncMap{"spaced": spaced}).ParseFS(webFiles, "web/cards.html"))

// spaced writes a card number as it is printed on cards.
func spaced(number string) string {
	if len(number) == 15 {
		return number[:4] + " " + number[4:10] + " " + number[10:]
	}
	var b strings.Builder
	for i, d := range number {
		if i > 0 && i%4 == 0 {
			b.WriteByte(' ')
		}
		b.WriteRune(d)
	}
	return b.String()
}
