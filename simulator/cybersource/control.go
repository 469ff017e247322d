package cybersource

import (
	"encoding/json"
	"html/template"
	"net/http"
	"strings"
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
