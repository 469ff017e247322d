package unifiedcheckout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"paythread/checkout/platforms/cybersource"
	"paythread/conversations"
)

// searchRequest is the body of POST /tss/v2/searches.
type searchRequest struct {
	Save     string `json:"save"`
	Timezone string `json:"timezone"`
	Query    string `json:"query"`
	Offset   int    `json:"offset"`
	Limit    int    `json:"limit"`
	Sort     string `json:"sort"`
}

// maxRows is far more than one reference has: a charge, and what followed it.
const maxRows = 100

type searchAnswer struct {
	TotalCount int `json:"totalCount"`
	Embedded   struct {
		Rows []transaction `json:"transactionSummaries"`
	} `json:"_embedded"`
}

// transaction is one row of a search, or the details of one transaction.
type transaction struct {
	ID                     text `json:"id"`
	SubmitTime             text `json:"submitTimeUtc"` // details write submitTimeUTC, which matches too
	MerchantID             text `json:"merchantId"`
	Status                 text `json:"status"`
	ReconciliationID       text `json:"reconciliationId"`
	RootID                 text `json:"rootId"` // of the details only: the first transaction of the chain
	ApplicationInformation struct {
		Status       text          `json:"status"`
		ReasonCode   text          `json:"reasonCode"`
		RFlag        text          `json:"rFlag"`
		Applications []application `json:"applications"`
	} `json:"applicationInformation"`
	ClientReferenceInformation struct {
		Code text `json:"code"`
	} `json:"clientReferenceInformation"`
	OrderInformation struct {
		AmountDetails amountsTold `json:"amountDetails"`
	} `json:"orderInformation"`
	PaymentInformation struct {
		Card struct {
			Suffix text `json:"suffix"`
			Type   text `json:"type"`
		} `json:"card"`
	} `json:"paymentInformation"`
	ProcessorInformation struct {
		ApprovalCode text `json:"approvalCode"`
	} `json:"processorInformation"`
	Links struct {
		Related json.RawMessage `json:"relatedTransactions"` // of the details only
	} `json:"_links"`
}

// related returns the transactions that the details name as related.
func (t transaction) related() []string {
	var links []struct {
		Href text `json:"href"`
	}
	if json.Unmarshal(t.Links.Related, &links) != nil {
		return nil // a form that no SDK has: it is a help and no more
	}
	var ids []string
	for _, l := range links {
		id := string(l.Href)[strings.LastIndexByte(string(l.Href), '/')+1:]
		if idForm.MatchString(id) && id != string(t.ID) {
			ids = append(ids, id)
		}
	}
	return ids
}

// application is one service that a transaction ran. A sale ran ics_auth and
// ics_bill.
type application struct {
	Name             text `json:"name"`
	ReasonCode       text `json:"reasonCode"`
	RCode            text `json:"rCode"` // 1 success, 0 declined, -1 error
	RFlag            text `json:"rFlag"`
	ReconciliationID text `json:"reconciliationId"`
}

const (
	rSuccess = "1"
	rDecline = "0"
	rError   = "-1"
)

// reversals are the services that release a hold.
var reversals = []string{"ics_auth_reversal", "ics_timeout_auth_reversal"}

func (t transaction) application(names ...string) (application, bool) {
	for _, a := range t.ApplicationInformation.Applications {
		if slices.Contains(names, string(a.Name)) {
			return a, true
		}
	}
	return application{}, false
}

func (t transaction) at() time.Time {
	if at := timePointer(string(t.SubmitTime)); at != nil {
		return *at
	}
	return time.Time{}
}

// refunds tells that money was given back by this transaction.
func (t transaction) refunds() bool {
	credit, ok := t.application("ics_credit")
	return ok && credit.RCode == rSuccess
}

// alternative is how the services of payments without a card begin.
const alternative = "ics_ap_"

// firstService is the first service that the transaction ran.
func (t transaction) firstService() string {
	if len(t.ApplicationInformation.Applications) == 0 {
		return ""
	}
	return string(t.ApplicationInformation.Applications[0].Name)
}

// status is the REST status, where a row has one.
func (t transaction) status() string {
	if t.Status != "" {
		return string(t.Status)
	}
	return string(t.ApplicationInformation.Status)
}

// numericReasons are the REST words for the numeric codes of a search.
var numericReasons = map[string]string{
	"101": "MISSING_FIELD", "102": "INVALID_DATA", "104": "DUPLICATE_REQUEST", "110": "PARTIAL_AUTHORIZED",
	"150": "SYSTEM_ERROR", "151": "SERVER_TIMEOUT", "152": "SERVICE_TIMEOUT", "200": "AVS_FAILED", "201": "CONTACT_PROCESSOR",
	"202": "EXPIRED_CARD", "203": "PROCESSOR_DECLINED", "204": "INSUFFICIENT_FUND", "205": "STOLEN_LOST_CARD",
	"207": "ISSUER_UNAVAILABLE", "208": "UNAUTHORIZED_CARD", "209": "CVN_NOT_MATCH", "210": "EXCEEDS_CREDIT_LIMIT",
	"211": "INVALID_CVN", "221": "BLACKLISTED_CUSTOMER", "222": "SUSPENDED_ACCOUNT", "230": "CV_FAILED", "231": "INVALID_ACCOUNT",
	"232": "CARD_TYPE_NOT_ACCEPTED", "233": "GENERAL_DECLINE", "234": "INVALID_MERCHANT_CONFIGURATION",
	"236": "PROCESSOR_UNAVAILABLE", "240": "INVALID_CARD_TYPE", "250": "SERVER_TIMEOUT", "400": "SCORE_EXCEEDS_THRESHOLD",
	"475": "CONSUMER_AUTHENTICATION_REQUIRED", "476": "CONSUMER_AUTHENTICATION_FAILED",
	"480": "DECISION_PROFILE_REVIEW", "481": "DECISION_PROFILE_REJECT",
}

// flagCodes are the numeric codes for a row that has only the older flags. A
// flag stands for several codes; this is the one that is handled as all of them.
var flagCodes = map[string]string{
	"SOK": "100", "SPARTIALAPPROVAL": "110", "DINVALIDDATA": "102", "ESYSTEM": "150", "ETIMEOUT": "151",
	"DAVSNO": "200", "DCALL": "201", "DCARDEXPIRED": "202", "DCARDREFUSED": "203", "DCV": "230", "DINVALIDCARD": "231",
}

// searched is what the rows of one reference come to, weakest first: of
// several, the strongest counts. An approval beats a decline, and that it was
// given back beats the approval. OutcomeNotFound stands for an error of the
// system: nothing is approved, but it may still turn up, as with no row at all.
var searched = []conversations.Outcome{
	conversations.OutcomeNotTaken, conversations.OutcomeDeclined, conversations.OutcomeNotFound, conversations.OutcomeUnknown,
	conversations.OutcomeAuthenticationPending, conversations.OutcomeRiskDeclined, conversations.OutcomeInReview,
	conversations.OutcomePartial, conversations.OutcomeAuthorized, conversations.OutcomeCaptured, conversations.OutcomeReversed,
}

// Inquire implements platforms.Inquirer. Search is not real time: a
// transaction may take minutes to appear.
func (p *Platform) Inquire(ctx context.Context, a conversations.Attempt) (conversations.Result, error) {
	best, outcome, err := p.look(ctx, a)
	if err == nil && outcome != conversations.OutcomeNotFound {
		best, err = p.complete(ctx, best, outcome)
	}
	switch {
	case err != nil:
		return conversations.Result{}, fmt.Errorf("inquire: %w", err)
	case best.ID == "":
		return conversations.Result{Outcome: conversations.OutcomeNotFound}, nil
	}
	return best.result(outcome, a.Amount), nil
}

// look finds the transaction that tells most of a charge, and what it tells.
// Without one the outcome is OutcomeNotFound, as of an error of the system.
func (p *Platform) look(ctx context.Context, a conversations.Attempt) (transaction, conversations.Outcome, error) {
	rows, err := p.search(ctx, a.StartedAt, a.Code)
	if err != nil {
		return transaction{}, "", err
	}
	known := a.Result.PaymentID
	if idForm.MatchString(known) && !slices.ContainsFunc(rows, func(t transaction) bool { return string(t.ID) == known }) {
		row, found, err := p.details(ctx, known)
		if err != nil {
			return transaction{}, "", err
		}
		if found && p.ours(row, a.Code) {
			rows = append(rows, row)
		}
	}
	// What is done in the back office has the reference of what it is done to. A
	// void may be of a capture, whose hold stays, or of a refund: only of a sale
	// that was not refunded does it give the charge back.
	voidable := a.Capture && !slices.ContainsFunc(rows, transaction.refunds)
	best, rank := transaction{}, -1
	for _, row := range rows {
		outcome, counts := rowOutcome(a.Capture, row)
		if given, ok := row.application("ics_void"); ok && given.RCode == rSuccess && voidable {
			outcome, counts = conversations.OutcomeReversed, true
		}
		if i := slices.Index(searched, outcome); counts && i > rank {
			best, rank = row, i
		}
	}
	if rank < 0 {
		return transaction{}, conversations.OutcomeNotFound, nil
	}
	return best, searched[rank], nil
}

// complete adds to a row of a search what the details know better: the row says
// what was asked for, the details, what was approved.
func (p *Platform) complete(ctx context.Context, t transaction, outcome conversations.Outcome) (transaction, error) {
	amounts := &t.OrderInformation.AmountDetails
	if !holds(outcome) || amounts.AuthorizedAmount != "" || amounts.TotalAmount != "" && outcome != conversations.OutcomePartial {
		return t, nil
	}
	full, found, err := p.details(ctx, string(t.ID))
	switch {
	case err != nil:
		return t, err
	case found && p.ours(full, string(t.ClientReferenceInformation.Code)):
		*amounts = full.OrderInformation.AmountDetails
	}
	if outcome == conversations.OutcomePartial {
		amounts.TotalAmount = "" // it may be what was asked for; only what was authorized will do
	}
	return t, nil
}

func holds(o conversations.Outcome) bool {
	switch o {
	case conversations.OutcomeAuthorized, conversations.OutcomeCaptured, conversations.OutcomePartial, conversations.OutcomeInReview, conversations.OutcomeRiskDeclined:
		return true
	}
	return false
}

// result is what a transaction tells of a charge for an amount.
func (t transaction) result(outcome conversations.Outcome, asked conversations.Money) conversations.Result {
	result := conversations.Result{
		ReconciliationID: word(string(t.ReconciliationID)),
		ApprovalCode:     word(string(t.ProcessorInformation.ApprovalCode)),
		CardBrand:        cardBrands[string(t.PaymentInformation.Card.Type)],
		CardLast4:        lastFour(string(t.PaymentInformation.Card.Suffix)),
		At:               timePointer(string(t.SubmitTime)),
	}
	// The id of a reversal is not the payment's, and the attempt keeps the one it has.
	if id := string(t.ID); outcome != conversations.OutcomeReversed && idForm.MatchString(id) {
		result.PaymentID = id
	}
	if auth, ok := t.application("ics_auth"); ok && result.ReconciliationID == "" {
		result.ReconciliationID = word(string(auth.ReconciliationID))
	}
	switch outcome {
	case conversations.OutcomeAuthorized, conversations.OutcomeCaptured, conversations.OutcomeReversed:
	default:
		result.Reason = t.reason()
	}
	amount, known := t.OrderInformation.AmountDetails.authorized()
	return weigh(result, outcome, asked, amount, known)
}

// reason is the REST word for the transaction's numeric reason, else the number.
func (t transaction) reason() string {
	code := t.code()
	if reason, ok := numericReasons[code]; ok {
		return reason
	}
	return word(code)
}

// code is the numeric reason of the whole transaction, else of its
// authorization, else the one of their flags.
func (t transaction) code() string {
	auth, _ := t.application("ics_auth")
	for _, code := range []text{t.ApplicationInformation.ReasonCode, auth.ReasonCode} {
		if code != "" {
			return string(code)
		}
	}
	for _, flag := range []text{t.ApplicationInformation.RFlag, auth.RFlag} {
		if code, ok := flagCodes[string(flag)]; ok {
			return code
		}
	}
	return ""
}

// rowOutcome says what one row tells of the charge, which was a sale or not,
// and whether it tells anything.
func rowOutcome(sale bool, t transaction) (outcome conversations.Outcome, counts bool) {
	if given, ok := t.application(reversals...); ok && given.RCode == rSuccess {
		return conversations.OutcomeReversed, true
	}
	code := t.code()
	auth, authorized := t.application("ics_auth")
	bill, billed := t.application("ics_bill")
	if !authorized {
		_, risk := t.application("ics_decision")
		_, authentication := t.application("ics_pa_setup", "ics_pa_enroll", "ics_pa_validate")
		switch {
		case billed && bill.RCode == rSuccess && sale:
			return conversations.OutcomeCaptured, true // a sale that was reviewed, and taken when it was accepted
		case (risk || authentication) && code == "475":
			return conversations.OutcomeAuthenticationPending, true
		case risk && code == "480":
			return conversations.OutcomeInReview, true
		case strings.HasPrefix(t.firstService(), alternative):
			return conversations.OutcomeUnknown, true // it may come to be paid for days
		case risk && code == "481", authentication && (code == "476" || code == "478"):
			return conversations.OutcomeDeclined, true
		}
		return "", false
	}
	// The bank approved, whatever was made of it later.
	held := auth.RCode == rSuccess || t.ProcessorInformation.ApprovalCode != "" || strings.HasPrefix(t.status(), "AUTHORIZED")
	switch code {
	case "100":
		switch {
		case auth.RCode != rSuccess:
			return conversations.OutcomeUnknown, true
		case billed && bill.RCode == rSuccess:
			return conversations.OutcomeCaptured, true
		}
		return conversations.OutcomeAuthorized, true
	case "110":
		return conversations.OutcomePartial, true
	case "200", "201", "230", "480":
		if held {
			return conversations.OutcomeInReview, true
		}
		return conversations.OutcomeDeclined, true
	case "400", "481", "520":
		if held {
			return conversations.OutcomeRiskDeclined, true
		}
		return conversations.OutcomeDeclined, true
	case "475":
		return conversations.OutcomeAuthenticationPending, true
	case "207", "236":
		return conversations.OutcomeDeclined, true // looked up, as the guide asks: it did not go through
	case "104":
		return conversations.OutcomeUnknown, true // refused because another one may have gone through
	case "101", "102", "232", "234":
		return conversations.OutcomeNotTaken, true
	}
	switch auth.RCode {
	case rDecline:
		return conversations.OutcomeDeclined, true
	case rError:
		return conversations.OutcomeNotFound, true
	}
	return conversations.OutcomeUnknown, true
}

// errSearch is the cause when a search cannot be believed.
var errSearch = errors.New("CyberSource's answer to the search cannot be read")

// search returns the transactions with exactly one of those references, that
// were submitted from some time before until some time after now.
func (p *Platform) search(ctx context.Context, since time.Time, codes ...string) ([]transaction, error) {
	for _, code := range codes {
		if !codeForm.MatchString(code) || len(code) > maxCode {
			return nil, errors.New("the reference is not one of ours")
		}
	}
	names := codes[0]
	if len(codes) > 1 {
		names = "(" + strings.Join(codes, " OR ") + ")"
	}
	from, to := since.Add(-p.searchWindow), p.now().Add(p.searchWindow)
	found, err := p.searchPage(ctx, searchRequest{
		Limit: maxRows, Sort: "submitTimeUtc:desc",
		Query: fmt.Sprintf("clientReferenceInformation.code:%s AND submitTimeUtc:[%d TO %d}", names, from.UnixMilli(), to.UnixMilli()),
	})
	if err != nil {
		return nil, err
	}
	if found.TotalCount > len(found.Embedded.Rows) {
		return nil, unavailable(fmt.Errorf("%w: it holds %d of %d transactions", errSearch, len(found.Embedded.Rows), found.TotalCount))
	}
	// The search may take a reference apart, so rows of others are dropped here.
	return slices.DeleteFunc(found.Embedded.Rows, func(t transaction) bool { return !p.ours(t, codes...) }), nil
}

// searchPage makes one search.
func (p *Platform) searchPage(ctx context.Context, request searchRequest) (searchAnswer, error) {
	request.Save, request.Timezone = "false", "GMT"
	answer, err := p.client.Do(ctx, cybersource.Call{Method: http.MethodPost, Path: "/tss/v2/searches", Body: request})
	if err != nil {
		return searchAnswer{}, unavailable(err)
	}
	if answer.Status != http.StatusCreated && answer.Status != http.StatusOK {
		return searchAnswer{}, unavailable(fmt.Errorf("CyberSource answered %d to the search (correlation id %s)", answer.Status, answer.CorrelationID))
	}
	var found searchAnswer
	if err := decodeStrict(answer.Body, &found); err != nil {
		return searchAnswer{}, unavailable(errSearch)
	}
	return found, nil
}

// ours tells whether a transaction has one of those references and is this
// merchant's.
func (p *Platform) ours(t transaction, codes ...string) bool {
	return slices.Contains(codes, string(t.ClientReferenceInformation.Code)) && p.mine(t)
}

// mine tells whether a transaction is this merchant's, as far as it says.
func (p *Platform) mine(t transaction) bool {
	return t.MerchantID == "" || strings.EqualFold(string(t.MerchantID), p.merchantID)
}

func (p *Platform) details(ctx context.Context, id string) (t transaction, found bool, err error) {
	if !idForm.MatchString(id) {
		return transaction{}, false, nil
	}
	answer, err := p.client.Do(ctx, cybersource.Call{Method: http.MethodGet, Path: "/tss/v2/transactions/" + id})
	if err != nil {
		return transaction{}, false, unavailable(err)
	}
	switch answer.Status {
	case http.StatusOK:
	case http.StatusNotFound: // not yet, or never
		return transaction{}, false, nil
	default:
		return transaction{}, false, unavailable(fmt.Errorf("CyberSource answered %d for a transaction (correlation id %s)", answer.Status, answer.CorrelationID))
	}
	if err := decodeStrict(answer.Body, &t); err != nil {
		return transaction{}, false, unavailable(errSearch)
	}
	return t, true, nil
}
