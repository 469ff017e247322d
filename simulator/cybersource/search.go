package cybersource

import (
	"cmp"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"
)

// searchRequest is the body of POST /tss/v2/searches.
type searchRequest struct {
	Save     looseBool `json:"save"`
	Name     string    `json:"name"`
	Timezone string    `json:"timezone"`
	Query    string    `json:"query"`
	Offset   int       `json:"offset"`
	Limit    *int      `json:"limit"`
	Sort     string    `json:"sort"`
}

const (
	defaultSearchLimit = 20
	maxSearchLimit     = 2500
	// keptSearches bounds the searches that can be read again by id.
	keptSearches = 1000
)

// savedSearch is a search that can be read again. It runs anew, from the time it was made.
type savedSearch struct {
	id       string
	merchant string
	request  searchRequest
	matches  matcher
	order    func(a, b *record) int
	limit    int
}

type searchStore struct {
	byID  map[string]*savedSearch
	order []string
}

func newSearchStore() searchStore { return searchStore{byID: map[string]*savedSearch{}} }

func (st *searchStore) keep(search *savedSearch) {
	st.byID[search.id] = search
	st.order = append(st.order, search.id)
	if len(st.order) > keptSearches {
		delete(st.byID, st.order[0])
		st.order = st.order[1:]
	}
}

func (s *Simulator) readSearch(c *call) (string, operation, *answer) {
	refuse := func(reason string, fields ...string) (string, operation, *answer) {
		a := s.refuse(reason, fields...)
		return "", nil, &a
	}
	var req searchRequest
	if err := json.Unmarshal(c.body, &req); err != nil {
		return refuse("INVALID_DATA", jsonField(err))
	}
	var missing []string
	if req.Query == "" {
		missing = append(missing, "query")
	}
	if req.Sort == "" {
		missing = append(missing, "sort")
	}
	if len(missing) > 0 {
		return refuse("MISSING_FIELD", missing...)
	}
	zone, err := time.LoadLocation(orElse(req.Timezone, "GMT"))
	if err != nil {
		return refuse("INVALID_DATA", "timezone")
	}
	search := &savedSearch{merchant: c.merchant.id, request: req, limit: defaultSearchLimit}
	if req.Limit != nil {
		search.limit = *req.Limit
	}
	if search.limit < 0 || search.limit > maxSearchLimit {
		return refuse("INVALID_DATA", "limit")
	}
	if req.Offset < 0 {
		return refuse("INVALID_DATA", "offset")
	}
	if search.matches, err = parseQuery(req.Query, s.now(), zone); err != nil {
		s.log.Warn("search refused", "error", err)
		return refuse("INVALID_DATA", "query")
	}
	var ok bool
	if search.order, ok = parseSort(req.Sort); !ok {
		return refuse("INVALID_DATA", "sort")
	}
	return "", func(commit bool) (answer, bool) {
		if !commit {
			return answer{}, true
		}
		search.id = newCorrelationID()
		s.searches.keep(search)
		return answer{status: http.StatusCreated, body: s.results(search)}, true
	}, nil
}

func (s *Simulator) readSavedSearch(c *call) (string, operation, *answer) {
	id := c.r.PathValue("id")
	return "", func(bool) (answer, bool) {
		search := s.searches.byID[id]
		if search == nil || search.merchant != c.merchant.id {
			return s.notFound(c), true
		}
		return answer{status: http.StatusOK, body: s.results(search)}, true
	}, nil
}

// parseSort reads "field:asc,field:desc".
func parseSort(text string) (func(a, b *record) int, bool) {
	var orders []func(a, b *record) int
	for part := range strings.SplitSeq(text, ",") {
		name, direction, _ := strings.Cut(strings.TrimSpace(part), ":")
		read, known := queryFields[name]
		if !known || !slices.Contains([]string{"", "asc", "desc"}, direction) {
			return nil, false
		}
		compare := func(a, b *record) int { return cmp.Compare(read(a), read(b)) }
		if name == "submitTimeUtc" {
			compare = func(a, b *record) int { return cmp.Or(a.Time.Compare(b.Time), cmp.Compare(a.ID, b.ID)) }
		}
		sign := 1
		if direction == "desc" {
			sign = -1
		}
		orders = append(orders, func(a, b *record) int { return sign * compare(a, b) })
	}
	return func(a, b *record) int {
		for _, order := range orders {
			if v := order(a, b); v != 0 {
				return v
			}
		}
		return 0
	}, true
}

// results runs a search over what is visible by now. The caller holds the lock.
func (s *Simulator) results(search *savedSearch) object {
	now := s.now()
	var found []*record
	for _, r := range s.ledger.list {
		if r.Merchant == search.merchant && r.visible(now) && search.matches(r) {
			found = append(found, r)
		}
	}
	slices.SortStableFunc(found, search.order)
	page := found[min(search.request.Offset, len(found)):]
	page = page[:min(search.limit, len(page))]
	rows := make([]object, len(page))
	for i, r := range page {
		rows[i] = summary(r)
	}
	return object{
		"searchId": search.id, "save": bool(search.request.Save), "name": search.request.Name,
		"timezone": orElse(search.request.Timezone, "GMT"), "query": search.request.Query,
		"offset": search.request.Offset, "limit": search.limit, "sort": search.request.Sort,
		"count": len(rows), "totalCount": len(found), "status": "COMPLETED", "submitTimeUtc": stamp(now),
		"_embedded": object{"transactionSummaries": rows},
		"_links":    object{"self": link(http.MethodGet, "/tss/v2/searches/%s", search.id)},
	}
}

// applicationNames are the services that a kind of transaction ran.
var applicationNames = map[string][]string{
	KindSale:           {"ics_auth", "ics_bill"},
	KindAuthorization:  {"ics_auth"},
	KindCapture:        {"ics_bill"},
	KindReversal:       {"ics_auth_reversal"},
	KindRefund:         {"ics_credit"},
	KindVoid:           {"ics_void"},
	KindDecline:        {"ics_auth"},
	KindAuthentication: {"ics_pa_enroll"},
	KindError:          {"ics_auth"},
}

// services are those that a record's application list names.
func (r *record) services() []string {
	switch {
	case r.timeout:
		return []string{"ics_timeout_auth_reversal"}
	case r.Kind != KindPending:
		return applicationNames[r.Kind]
	case r.review == underReview:
		return []string{"ics_decision"}
	}
	return []string{"ics_ap_sale"}
}

// rCode is 1 for success, 0 for a decline and -1 for an error.
func rCode(r *record) string {
	switch {
	case r.Kind == KindError:
		return "-1"
	case r.result.status == statusAuthorized || r.result.status == statusPartial || r.result.status == statusPending:
		return "1"
	}
	return "0"
}

func applicationInformation(r *record) object {
	facts := r.result.facts()
	var applications []object
	for _, name := range r.services() {
		applications = append(applications, object{
			"name": name, "status": r.Status, "reasonCode": facts.code, "rCode": rCode(r), "rFlag": facts.flag,
			"rMessage": facts.message, "reconciliationId": r.reconciliationID,
		})
	}
	return object{"status": r.Status, "reasonCode": facts.code, "rCode": rCode(r), "rFlag": facts.flag, "applications": applications}
}

// summary is one row of a search.
func summary(r *record) object {
	network, _ := brandOf(r.card.Number)
	return object{
		"id": r.ID, "submitTimeUtc": stamp(r.Time), "merchantId": r.Merchant, "status": r.Status,
		"applicationInformation":     applicationInformation(r),
		"clientReferenceInformation": referenceBody(r),
		"orderInformation": object{
			"amountDetails": object{"totalAmount": r.requested.in(r.Currency), "currency": r.Currency},
			"billTo":        object{"firstName": r.billTo.FirstName, "lastName": r.billTo.LastName, "email": r.billTo.Email, "country": r.billTo.Country},
		},
		"paymentInformation":   object{"paymentMethod": object{"type": "credit card"}, "card": object{"prefix": r.card.prefix(), "suffix": r.card.suffix(), "type": network.Code}},
		"processorInformation": object{"processor": object{"name": "simulator"}, "approvalCode": r.approvalCode},
		"_links":               object{"transactionDetail": link(http.MethodGet, "/tss/v2/transactions/%s", r.ID)},
	}
}

func (s *Simulator) readDetails(c *call) (string, operation, *answer) {
	id := c.r.PathValue("id")
	return "", func(bool) (answer, bool) {
		r := s.ledger.find(c.merchant.id, id)
		if r == nil || !r.visible(s.now()) {
			return s.notFound(c), true
		}
		return answer{status: http.StatusOK, body: s.details(r)}, true
	}, nil
}

// details is the whole of one transaction. It writes submitTimeUTC, unlike search. Related are the one
// that it acted on, first, and those that acted on it. The caller holds the lock.
func (s *Simulator) details(r *record) object {
	network, _ := brandOf(r.card.Number)
	amounts := object{"totalAmount": r.requested.in(r.Currency), "currency": r.Currency}
	processor := object{"processor": object{"name": "simulator"}, "responseCode": r.result.facts().response}
	if r.isPayment() && r.authorized > 0 {
		amounts["authorizedAmount"] = r.authorized.in(r.Currency)
		processor["approvalCode"] = r.approvalCode
		processor["networkTransactionId"] = r.networkID
		processor["transactionId"] = r.networkID
	}
	switch r.Kind {
	case KindSale:
		amounts["refundBalance"] = (r.captured - r.refunded).in(r.Currency)
	case KindCapture:
		amounts["refundBalance"] = (r.requested - r.refunded).in(r.Currency)
	}
	body := object{
		"id": r.ID, "rootId": r.root().ID, "submitTimeUTC": stamp(r.Time), "merchantId": r.Merchant,
		"reconciliationId":           r.reconciliationID,
		"applicationInformation":     applicationInformation(r),
		"clientReferenceInformation": referenceBody(r),
		"orderInformation":           object{"amountDetails": amounts, "billTo": r.billTo},
		"paymentInformation": object{"card": object{
			"prefix": r.card.prefix(), "suffix": r.card.suffix(), "type": network.Code,
			"expirationMonth": r.card.ExpirationMonth, "expirationYear": r.card.ExpirationYear,
		}},
		"processorInformation": processor,
		"_links":               object{"self": link(http.MethodGet, "/tss/v2/transactions/%s", r.ID)},
	}
	if r.Reason != "" {
		body["errorInformation"] = object{"reason": r.Reason, "message": r.result.facts().message}
	}
	related := []object{}
	relate := func(other *record) {
		related = append(related, link(http.MethodGet, "/tss/v2/transactions/%s", other.ID))
	}
	if r.parent != nil {
		relate(r.parent)
	}
	for _, child := range r.children {
		relate(child)
	}
	if len(related) > 0 {
		body["_links"].(object)["relatedTransactions"] = related
	}
	return body
}

func (s *Simulator) notFound(c *call) answer {
	return answer{status: http.StatusNotFound, body: object{
		"correlationId": c.correlationID, "submitTimeUtc": stamp(s.now()), "status": "NOT_FOUND", "reason": "NOT_FOUND",
		"message": "The requested resource is not found", "details": []detail{{"id", "NOT_FOUND"}},
	}}
}
