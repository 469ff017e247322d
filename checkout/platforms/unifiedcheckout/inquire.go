package unifiedcheckout

import (
	"context"
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
}

// application is one service that a transaction ran. A sale ran ics_auth and
// ics_bill.
type application struct {
	Name             text `json:"name"`
	ReasonCode       text `json:"reasonCode"`
	RCode            text `json:"rCode"` // 1 success, 0 declined, -1 error
	ReconciliationID text `json:"reconciliationId"`
}

const (
	rSuccess = "1"
	rDecline = "0"
	rError   = "-1"
)

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
	rows, err := p.search(ctx, a.Code, a.StartedAt)
	if err != nil {
		return conversations.Result{}, fmt.Errorf("inquire: %w", err)
	}
	known := a.Result.PaymentID
	if idForm.MatchString(known) && !slices.ContainsFunc(rows, func(t transaction) bool { return string(t.ID) == known }) {
		row, found, err := p.details(ctx, known)
		if err != nil {
			return conversations.Result{}, fmt.Errorf("inquire: %w", err)
		}
		if found && p.ours(row, a.Code) {
			rows = append(rows, row)
		}
	}
	best, rank := transaction{}, -1
	for _, row := range rows {
		outcome, counts := rowOutcome(a, row)
		if i := slices.Index(searched, outcome); counts && i > rank {
			best, rank = row, i
		}
	}
	if rank < 0 {
		return conversations.Result{Outcome: conversations.OutcomeNotFound}, nil
	}
	outcome := searched[rank]
	if holds(outcome) && (outcome == conversations.OutcomePartial || best.OrderInformation.AmountDetails.TotalAmount == "") &&
		best.OrderInformation.AmountDetails.AuthorizedAmount == "" {
		// A row of a search says what was asked for; the details, what was approved.
		full, found, err := p.details(ctx, string(best.ID))
		switch {
		case err != nil:
			return conversations.Result{}, fmt.Errorf("inquire: %w", err)
		case found && p.ours(full, a.Code):
			best.OrderInformation = full.OrderInformation
		}
		if outcome == conversations.OutcomePartial {
			// Only the authorized amount will do: the total may be what was asked.
			best.OrderInformation.AmountDetails.TotalAmount = ""
		}
	}
	return best.result(a, outcome), nil
}

func holds(o conversations.Outcome) bool {
	switch o {
	case conversations.OutcomeAuthorized, conversations.OutcomeCaptured, conversations.OutcomePartial, conversations.OutcomeInReview, conversations.OutcomeRiskDeclined:
		return true
	}
	return false
}

func (t transaction) result(a conversations.Attempt, outcome conversations.Outcome) conversations.Result {
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
		code := t.code()
		result.Reason = numericReasons[code]
		if result.Reason == "" {
			result.Reason = word(code)
		}
	}
	amount, known := t.OrderInformation.AmountDetails.authorized()
	return weigh(result, outcome, a.Amount, amount, known)
}

// code is the numeric reason of the whole transaction, else of its
// authorization.
func (t transaction) code() string {
	if t.ApplicationInformation.ReasonCode != "" {
		return string(t.ApplicationInformation.ReasonCode)
	}
	auth, _ := t.application("ics_auth")
	return string(auth.ReasonCode)
}

// rowOutcome says what one row tells of the charge, and whether it tells
// anything.
func rowOutcome(a conversations.Attempt, t transaction) (outcome conversations.Outcome, counts bool) {
	if given, ok := t.application("ics_auth_reversal", "ics_timeout_auth_reversal", "ics_void"); ok && given.RCode == rSuccess {
		return conversations.OutcomeReversed, true
	}
	code := t.code()
	auth, authorized := t.application("ics_auth")
	bill, billed := t.application("ics_bill")
	if !authorized {
		_, risk := t.application("ics_decision")
		_, authentication := t.application("ics_pa_setup", "ics_pa_enroll", "ics_pa_validate")
		switch {
		case billed && bill.RCode == rSuccess && a.Capture:
			return conversations.OutcomeCaptured, true // a sale that was reviewed, and taken when it was accepted
		case (risk || authentication) && code == "475":
			return conversations.OutcomeAuthenticationPending, true
		case risk && code == "480":
			return conversations.OutcomeInReview, true
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

// search returns the transactions with exactly that reference.
func (p *Platform) search(ctx context.Context, code string, around time.Time) ([]transaction, error) {
	if !codeForm.MatchString(code) || len(code) > maxCode {
		return nil, errors.New("the reference is not one of ours")
	}
	from, to := around.Add(-p.searchWindow), p.now().Add(p.searchWindow)
	answer, err := p.client.Do(ctx, cybersource.Call{Method: http.MethodPost, Path: "/tss/v2/searches", Body: searchRequest{
		Save: "false", Timezone: "GMT", Limit: maxRows, Sort: "submitTimeUtc:desc",
		Query: fmt.Sprintf("clientReferenceInformation.code:%s AND submitTimeUtc:[%d TO %d}", code, from.UnixMilli(), to.UnixMilli()),
	}})
	if err != nil {
		return nil, unavailable(err)
	}
	if answer.Status != http.StatusCreated && answer.Status != http.StatusOK {
		return nil, unavailable(fmt.Errorf("CyberSource answered %d to the search (correlation id %s)", answer.Status, answer.CorrelationID))
	}
	var found searchAnswer
	if err := decodeStrict(answer.Body, &found); err != nil {
		return nil, unavailable(errSearch)
	}
	if found.TotalCount > len(found.Embedded.Rows) {
		return nil, unavailable(fmt.Errorf("%w: it holds %d of %d transactions", errSearch, len(found.Embedded.Rows), found.TotalCount))
	}
	// The search may take a reference apart, so rows of others are dropped here.
	return slices.DeleteFunc(found.Embedded.Rows, func(t transaction) bool { return !p.ours(t, code) }), nil
}

// ours tells whether a transaction has that reference and is this merchant's.
func (p *Platform) ours(t transaction, code string) bool {
	return string(t.ClientReferenceInformation.Code) == code && (t.MerchantID == "" || strings.EqualFold(string(t.MerchantID), p.merchantID))
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
