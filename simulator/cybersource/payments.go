package cybersource

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"time"
)

// looseBool is a boolean that the API writes as a string in some places.
type looseBool bool

// UnmarshalJSON takes true and "true".
func (f *looseBool) UnmarshalJSON(b []byte) error {
	v := string(bytes.Trim(b, `"`))
	*f = looseBool(v == "true" || v == "TRUE")
	return nil
}

func (f looseBool) isTrue() bool { return bool(f) }

type clientReference struct {
	Code          string `json:"code,omitempty"`
	TransactionID string `json:"transactionId,omitempty"`
}

type amountDetails struct {
	TotalAmount string `json:"totalAmount,omitempty"`
	Currency    string `json:"currency,omitempty"`
}

type billTo struct {
	FirstName          string `json:"firstName,omitempty"`
	LastName           string `json:"lastName,omitempty"`
	Address1           string `json:"address1,omitempty"`
	Address2           string `json:"address2,omitempty"`
	Locality           string `json:"locality,omitempty"`
	AdministrativeArea string `json:"administrativeArea,omitempty"`
	PostalCode         string `json:"postalCode,omitempty"`
	Country            string `json:"country,omitempty"`
	Email              string `json:"email,omitempty"`
	PhoneNumber        string `json:"phoneNumber,omitempty"`
}

type orderInformation struct {
	AmountDetails amountDetails `json:"amountDetails"`
	BillTo        billTo        `json:"billTo"`
}

type authorizationOptions struct {
	IgnoreAVSResult looseBool `json:"ignoreAvsResult"`
	IgnoreCVResult  looseBool `json:"ignoreCvResult"`
	Partial         looseBool `json:"partialAuthIndicator"`
}

func (o authorizationOptions) partial() bool { return o.Partial.isTrue() }

type paymentRequest struct {
	ClientReferenceInformation clientReference `json:"clientReferenceInformation"`
	ProcessingInformation      struct {
		Capture              bool                 `json:"capture"`
		CommerceIndicator    string               `json:"commerceIndicator"`
		ActionList           []string             `json:"actionList"`
		AuthorizationOptions authorizationOptions `json:"authorizationOptions"`
	} `json:"processingInformation"`
	TokenInformation struct {
		TransientTokenJWT string `json:"transientTokenJwt"`
		JTI               string `json:"jti"`
	} `json:"tokenInformation"`
	PaymentInformation struct {
		Card *card `json:"card"`
	} `json:"paymentInformation"`
	OrderInformation                  orderInformation `json:"orderInformation"`
	ConsumerAuthenticationInformation struct {
		AuthenticationTransactionID string `json:"authenticationTransactionId"`
	} `json:"consumerAuthenticationInformation"`
	ReversalInformation struct {
		AmountDetails amountDetails `json:"amountDetails"`
		Reason        string        `json:"reason"`
	} `json:"reversalInformation"`
}

// detail is one entry of a 400's details.
type detail struct {
	Field  string `json:"field"`
	Reason string `json:"reason"`
}

// refusalMessages are the sentences that go with the reasons of a 400.
var refusalMessages = map[string]string{
	"MISSING_FIELD":                           "Declined - The request is missing one or more fields",
	"INVALID_DATA":                            "Declined - One or more fields in the request contains invalid data",
	"EXCEEDS_AUTH_AMOUNT":                     "Declined - The capture amount exceeds the authorized amount",
	"AUTH_ALREADY_REVERSED":                   "Declined - The authorization has already been reversed",
	"TRANSACTION_ALREADY_SETTLED":             "Declined - The transaction has already been settled",
	"TRANSACTION_ALREADY_REVERSED_OR_SETTLED": "Declined - The transaction has already been settled or reversed",
	"MISSING_AUTH":                            "Declined - You requested a capture, but there is no corresponding, unused authorization record",
	"INVALID_CARD":                            "Declined - The card is not valid",
	"CARD_TYPE_NOT_ACCEPTED":                  "Declined - The card type is not accepted by the payment processor",
	"INVALID_CARD_TYPE":                       "Declined - The card type is not valid, or does not fit the card number",
	"INVALID_AMOUNT":                          "Declined - The requested amount is not valid",
	"INVALID_MERCHANT_CONFIGURATION":          "Declined - There is a problem with your merchant configuration",
	"PROCESSOR_UNAVAILABLE":                   "Declined - The processor is not available",
	"NOT_SUPPORTED":                           "Declined - The request is not supported",
	"INVALID_PAYMENT_ID":                      "Declined - The payment id is not valid",
	"ACCOUNT_NOT_ALLOWED_CREDIT":              "Declined - The account is not allowed to make credits",
	"CAPTURE_ALREADY_VOIDED":                  "Declined - You requested a credit for a capture that was previously voided",
	"NOT_VOIDABLE":                            "Declined - The capture or credit is not voidable because the capture or credit information has already been submitted to your processor, or the transaction type cannot be voided",
}

const (
	duplicateTransactionID = "Declined - The transaction identifier sent with this request has already been used in the last 60 days"
	duplicateCode          = "Declined - The merchantReferenceCode sent with this authorization request matches the merchantReferenceCode of another authorization request that you sent in the last 15 minutes"
)

const (
	transactionIDWindow = 60 * 24 * time.Hour
	codeWindow          = 15 * time.Minute
	refundWindow        = 180 * 24 * time.Hour
	// timeoutReversalWait is how long a merchant has to wait before it cancels by transactionId.
	timeoutReversalWait = time.Minute
)

func (s *Simulator) refuse(reason string, fields ...string) answer {
	return s.refuseWith(reason, refusalMessages[reason], fields...)
}

// refuseWith is the flat body of a 400: no errorInformation.
func (s *Simulator) refuseWith(reason, message string, fields ...string) answer {
	body := map[string]any{"submitTimeUtc": stamp(s.now()), "status": "INVALID_REQUEST", "reason": reason, "message": message}
	details := make([]detail, len(fields))
	for i, f := range fields {
		details[i] = detail{f, reason}
	}
	if len(details) > 0 {
		body["details"] = details
	}
	return answer{status: http.StatusBadRequest, body: body}
}

// decode reads a payments body. What is not JSON of the right types is refused.
func (s *Simulator) decode(c *call) (*paymentRequest, *answer) {
	req := &paymentRequest{}
	if len(bytes.TrimSpace(c.body)) == 0 {
		return req, nil
	}
	if err := json.Unmarshal(c.body, req); err != nil {
		a := s.refuse("INVALID_DATA", jsonField(err))
		return req, &a
	}
	ref := req.ClientReferenceInformation
	if len(ref.Code) > 50 {
		a := s.refuse("INVALID_DATA", "clientReferenceInformation.code")
		return req, &a
	}
	if len(ref.TransactionID) > 30 {
		a := s.refuse("INVALID_DATA", "clientReferenceInformation.transactionId")
		return req, &a
	}
	return req, nil
}

func (s *Simulator) readPayment(c *call) (string, operation, *answer) {
	req, refusal := s.decode(c)
	code := req.ClientReferenceInformation.Code
	if refusal != nil {
		return code, nil, refusal
	}
	if refusal := s.checkAmount(req.OrderInformation.AmountDetails, "orderInformation.amountDetails"); refusal != nil {
		return code, nil, refusal
	}
	return code, func(commit bool) (answer, bool) { return s.pay(c.merchant, req, c.told, commit) }, nil
}

// checkAmount refuses an amount that is absent or wrong by itself.
func (s *Simulator) checkAmount(d amountDetails, path string) *answer {
	var missing []string
	if d.TotalAmount == "" {
		missing = append(missing, path+".totalAmount")
	}
	if d.Currency == "" {
		missing = append(missing, path+".currency")
	}
	if len(missing) > 0 {
		a := s.refuse("MISSING_FIELD", missing...)
		return &a
	}
	if !validCurrency(d.Currency) {
		a := s.refuse("INVALID_DATA", path+".currency")
		return &a
	}
	if _, err := parseAmount(d.TotalAmount, d.Currency); err != nil {
		a := s.refuse("INVALID_DATA", path+".totalAmount")
		return &a
	}
	return nil
}

// pay authorizes or sells. The amount is the request's; what the token was made for does not count.
// With told, that is the outcome, whatever card and amount say. The caller holds the lock.
func (s *Simulator) pay(merchant *account, req *paymentRequest, told *outcome, commit bool) (answer, bool) {
	source, refusal := s.paymentSource(merchant, req)
	if refusal != nil {
		return *refusal, false
	}
	bill := source.billTo.overriddenBy(req.OrderInformation.BillTo)
	if missing := bill.missing(); len(missing) > 0 {
		return s.refuse("MISSING_FIELD", missing...), false
	}
	ref := req.ClientReferenceInformation
	if refusal := s.checkTransactionID(merchant, ref.TransactionID); refusal != nil {
		return *refusal, false
	}
	if s.cfg.DuplicateCodeBlock && ref.Code != "" {
		if before := s.ledger.codes[[2]string{merchant.id, ref.Code}]; before != nil && s.now().Sub(before.Time) <= codeWindow {
			return s.refuseWith("DUPLICATE_REQUEST", duplicateCode, "clientReferenceInformation.code"), false
		}
	}
	if slices.Contains(req.ProcessingInformation.ActionList, "VALIDATE_CONSUMER_AUTHENTICATION") &&
		req.ConsumerAuthenticationInformation.AuthenticationTransactionID == "" {
		return s.refuse("MISSING_FIELD", "consumerAuthenticationInformation.authenticationTransactionId"), false
	}
	if !commit {
		return answer{}, true
	}

	details := req.OrderInformation.AmountDetails
	total, err := parseAmount(details.TotalAmount, details.Currency)
	if err != nil {
		return s.refuse("INVALID_DATA", "orderInformation.amountDetails.totalAmount"), false
	}
	result := s.decide(req, source.card, total)
	if told != nil {
		result = *told
	}
	r := &record{
		Transaction: Transaction{
			Merchant: merchant.id, Code: ref.Code, TransactionID: ref.TransactionID,
			Currency: details.Currency, Status: result.status, Reason: result.reason,
		},
		requested: total, result: result, told: result, card: source.card, billTo: bill,
		wantsCapture: req.ProcessingInformation.Capture,
	}
	s.settleOutcome(r)
	s.add(r)
	if result.holds() {
		if source.token != nil {
			source.token.used = true
		}
		if ref.Code != "" {
			s.ledger.codes[[2]string{merchant.id, ref.Code}] = r
		}
	}
	s.announcePayment(r)
	return s.paymentAnswer(r), true
}

// settleOutcome derives from the outcome what kind of transaction it is and what money it holds.
func (s *Simulator) settleOutcome(r *record) {
	o := r.result
	r.Kind = KindDecline
	switch {
	case o.holds():
		s.hold(r)
	case o.status == statusPendingAuthentication:
		r.Kind = KindAuthentication
	case o.status == statusPendingReview:
		r.Kind, r.review = KindPending, underReview
	case o.status == statusPending:
		r.Kind = KindPending
	case o.code() >= http.StatusInternalServerError:
		r.Kind = KindError
	case o.status == newWord:
		r.Kind, r.result = KindError, outcome{status: statusServerError, reason: "SYSTEM_ERROR"}
	}
	if o.charged {
		// The merchant is told something else, but the books say what happened.
		r.Status, r.Reason, r.result = statusAuthorized, "", approved
	}
	moved := r.requested
	if o.holds() {
		moved = r.authorized
	}
	r.Amount = moved.in(r.Currency)
}

// hold has the bank hold the money of a payment, and take it where nothing stands against that.
func (s *Simulator) hold(r *record) {
	o := r.result
	r.Kind = KindAuthorization
	r.authorized = r.requested
	r.approvalCode = "831000"
	if s.cfg.Processor == processorPaymentech {
		r.approvalCode = "888888"
	}
	r.networkID = randomText(digits, 15)
	switch {
	case o.status == statusPartial:
		r.authorized = r.requested / 2 / (unit / 100) * (unit / 100)
		if decimals(r.Currency) == 0 {
			r.authorized = r.requested / 2 / unit * unit
		}
	case o.status == statusReview:
		r.review = underReview
	case o.status != statusRiskDeclined && r.wantsCapture:
		r.Kind = KindSale
		r.captured = r.authorized
	}
}

// checkTransactionID refuses a transactionId that was used before, where the processor does.
func (s *Simulator) checkTransactionID(merchant *account, id string) *answer {
	if id == "" || s.cfg.Processor != processorVPC {
		return nil
	}
	if before := s.ledger.transactionIDs[[2]string{merchant.id, id}]; before != nil && s.now().Sub(before.Time) <= transactionIDWindow {
		a := s.refuseWith("DUPLICATE_REQUEST", duplicateTransactionID, "clientReferenceInformation.transactionId")
		return &a
	}
	return nil
}

// paymentSource is the card behind a payment request.
type source struct {
	card   card
	billTo billTo
	token  *transientToken
}

func (s *Simulator) paymentSource(merchant *account, req *paymentRequest) (source, *answer) {
	if token := req.TokenInformation.TransientTokenJWT; token != "" {
		t := s.verifyToken(token)
		if !s.usable(t, merchant) {
			a := s.refuse("INVALID_DATA", "tokenInformation.transientTokenJwt")
			return source{}, &a
		}
		return source{t.card, t.billTo, t}, nil
	}
	if jti := req.TokenInformation.JTI; jti != "" {
		t := s.tokens[jti]
		if !s.usable(t, merchant) {
			a := s.refuse("INVALID_DATA", "tokenInformation.jti")
			return source{}, &a
		}
		return source{t.card, t.billTo, t}, nil
	}
	if req.PaymentInformation.Card == nil || req.PaymentInformation.Card.Number == "" {
		a := s.refuse("MISSING_FIELD", "paymentInformation.card.number")
		return source{}, &a
	}
	pan := req.PaymentInformation.Card.tidy()
	if field, err := pan.check(); err != nil {
		a := s.refuse("INVALID_DATA", "paymentInformation.card."+field)
		return source{}, &a
	}
	return source{card: pan}, nil
}

// overriddenBy fills in b what the request says differently.
func (b billTo) overriddenBy(req billTo) billTo {
	set := func(field *string, v string) {
		if v != "" {
			*field = v
		}
	}
	set(&b.FirstName, req.FirstName)
	set(&b.LastName, req.LastName)
	set(&b.Address1, req.Address1)
	set(&b.Address2, req.Address2)
	set(&b.Locality, req.Locality)
	set(&b.AdministrativeArea, req.AdministrativeArea)
	set(&b.PostalCode, req.PostalCode)
	set(&b.Country, req.Country)
	set(&b.Email, req.Email)
	set(&b.PhoneNumber, req.PhoneNumber)
	return b
}

// missing lists the billing fields that a card-not-present payment needs and does not have.
func (b billTo) missing() []string {
	needed := []struct{ name, value string }{
		{"firstName", b.FirstName}, {"lastName", b.LastName}, {"address1", b.Address1},
		{"locality", b.Locality}, {"country", b.Country}, {"email", b.Email},
	}
	if b.Country == "US" || b.Country == "CA" {
		needed = append(needed, []struct{ name, value string }{
			{"administrativeArea", b.AdministrativeArea}, {"postalCode", b.PostalCode},
		}...)
	}
	var fields []string
	for _, n := range needed {
		if n.value == "" {
			fields = append(fields, "orderInformation.billTo."+n.name)
		}
	}
	return fields
}

// callRead names GET of a payment, which shows at once what search shows later.
const callRead = "cybersource.retrieve"

func (s *Simulator) readOnePayment(c *call) (string, operation, *answer) {
	id := c.r.PathValue("id")
	return "", func(bool) (answer, bool) {
		r := s.ledger.find(c.merchant.id, id)
		if r == nil || !r.isPayment() {
			return s.notFound(c), true
		}
		return answer{status: http.StatusOK, body: s.paymentBody(r)}, true
	}, nil
}

type object = map[string]any

func link(method, format string, args ...any) object {
	return object{"method": method, "href": fmt.Sprintf(format, args...)}
}

// paymentAnswer is what the merchant is told about a payment just made.
func (s *Simulator) paymentAnswer(r *record) answer {
	if r.told.code() >= http.StatusInternalServerError {
		return s.serverError(r.told, r.ID, stamp(r.Time))
	}
	body := s.paymentBody(r)
	body["status"] = r.told.status
	return answer{status: http.StatusCreated, body: body}
}

func (s *Simulator) paymentBody(r *record) object {
	network, _ := brandOf(r.card.Number)
	facts := r.result.facts()
	body := object{
		"id": r.ID, "status": r.Status, "submitTimeUtc": stamp(r.Time), "reconciliationId": r.reconciliationID,
		"clientReferenceInformation": referenceBody(r),
		"paymentAccountInformation":  object{"card": object{"type": network.Code}},
		"paymentInformation":         object{"card": object{"type": network.Code}, "tokenizedCard": object{"type": network.Code}},
	}
	if r.Reason != "" {
		body["errorInformation"] = object{"reason": r.Reason, "message": facts.message}
	}
	if r.result.status == statusPendingAuthentication {
		body["consumerAuthenticationInformation"] = object{
			"accessToken": randomText(upperAlphanumerics, 64), "stepUpUrl": s.origin + "/V2/Cruise/StepUp",
			"authenticationTransactionId": randomText(upperAlphanumerics, 20), "veresEnrolled": "Y", "paresStatus": "C",
			"challengeRequired": "N", "specificationVersion": "2.2.0",
		}
		return body
	}
	processor := object{"responseCode": facts.response}
	if s.cfg.Processor == processorPaymentech && r.result.holds() {
		processor["responseCode"] = "100"
	}
	if facts.category != "" {
		body["paymentInsightsInformation"] = object{"responseInsights": object{"category": insights[facts.category], "categoryCode": facts.category}}
	}
	if r.result.holds() {
		processor["approvalCode"] = r.approvalCode
		processor["transactionId"] = r.networkID
		processor["networkTransactionId"] = r.networkID
		avs, cvn := orElse(r.result.avs, "Y"), orElse(r.result.cvn, "M")
		processor["avs"] = object{"code": avs, "codeRaw": avs}
		processor["cardVerification"] = object{"resultCode": cvn, "resultCodeRaw": cvn}
		amounts := object{"authorizedAmount": r.authorized.in(r.Currency), "currency": r.Currency}
		if r.Kind == KindSale || r.result.status == statusPartial {
			amounts["totalAmount"] = r.requested.in(r.Currency)
		}
		body["orderInformation"] = object{"amountDetails": amounts}
		self := "/pts/v2/payments/" + r.ID
		links := object{"self": link(http.MethodGet, "%s", self)}
		if r.Kind == KindSale {
			links["void"] = link(http.MethodPost, "%s/voids", self)
		} else {
			links["authReversal"] = link(http.MethodPost, "%s/reversals", self)
			links["capture"] = link(http.MethodPost, "%s/captures", self)
		}
		body["_links"] = links
	}
	body["processorInformation"] = processor
	return body
}

// insights are the issuer's advice behind a categoryCode.
var insights = map[string]string{
	"01": "ISSUER_WILL_NEVER_APPROVE",
	"02": "ISSUER_CANNOT_APPROVE_AT_THIS_TIME",
	"03": "ISSUER_CANNOT_APPROVE_WITH_THESE_DETAILS",
}

func referenceBody(r *record) object {
	body := object{}
	if r.Code != "" {
		body["code"] = r.Code
	}
	if r.TransactionID != "" {
		body["transactionId"] = r.TransactionID
	}
	return body
}

func orElse(v, otherwise string) string {
	if v == "" {
		return otherwise
	}
	return v
}
