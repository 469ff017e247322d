package cybersource

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// The REST statuses of a payment.
const (
	statusAuthorized            = "AUTHORIZED"
	statusPartial               = "PARTIAL_AUTHORIZED"
	statusReview                = "AUTHORIZED_PENDING_REVIEW"
	statusRiskDeclined          = "AUTHORIZED_RISK_DECLINED"
	statusPendingAuthentication = "PENDING_AUTHENTICATION"
	statusDeclined              = "DECLINED"
	statusServerError           = "SERVER_ERROR"
	statusPendingReview         = "PENDING_REVIEW"
	statusPending               = "PENDING"
	statusInvalid               = "INVALID_REQUEST"
)

const (
	processorVPC        = "vpc"
	processorPaymentech = "paymentech"
)

// outcome is what a payment, or another call, comes to.
type outcome struct {
	status  string
	reason  string // errorInformation.reason, or the reason of a flat body
	http    int    // when not the status's own
	charged bool   // the effect happens all the same: the bank has approved
	avs     string // when not Y
	cvn     string // when not M
}

// code is the HTTP status of the answer.
func (o outcome) code() int {
	switch {
	case o.http != 0:
		return o.http
	case o.status == statusServerError:
		return http.StatusBadGateway
	}
	return http.StatusCreated
}

func declined(reason string) outcome { return outcome{status: statusDeclined, reason: reason} }

var approved = outcome{status: statusAuthorized}

// holds says whether the bank holds money after this outcome, which is also what uses a transient token up.
func (o outcome) holds() bool {
	switch o.status {
	case statusAuthorized, statusPartial, statusReview, statusRiskDeclined:
		return true
	}
	return o.charged
}

func (o outcome) describe() string {
	text := strconv.Itoa(o.code()) + " " + o.status
	if o.reason != "" {
		text += " " + o.reason
	}
	return text
}

// reasonFacts are what each reason looks like elsewhere: its numeric code and flag in search results,
// its message, the processor's response code, and the issuer's advice about retries.
type reasonFacts struct {
	code     string
	flag     string
	message  string
	response string
	category string
}

var reasons = map[string]reasonFacts{
	"":                                 {"100", "SOK", "Request was processed successfully.", "00", ""},
	"AVS_FAILED":                       {"200", "DAVSNO", "Soft Decline - The authorization request was approved by the issuing bank but flagged because it did not pass the Address Verification System check.", "00", ""},
	"CONTACT_PROCESSOR":                {"201", "DCALL", "Decline - The issuing bank has questions about the request.", "01", ""},
	"EXPIRED_CARD":                     {"202", "DCARDEXPIRED", "Decline - Expired card. You might also receive this if the expiration date you provided does not match the date the issuing bank has on file.", "54", "03"},
	"PROCESSOR_DECLINED":               {"203", "DCARDREFUSED", "Decline - General decline of the card. No other information provided by the issuing bank.", "05", "02"},
	"INSUFFICIENT_FUND":                {"204", "DCARDREFUSED", "Decline - Insufficient funds in the account.", "51", "02"},
	"STOLEN_LOST_CARD":                 {"205", "DCARDREFUSED", "Decline - Stolen or lost card.", "43", "01"},
	"UNAUTHORIZED_CARD":                {"208", "DCARDREFUSED", "Decline - Inactive card or card not authorized for card-not-present transactions.", "57", "01"},
	"EXCEEDS_CREDIT_LIMIT":             {"210", "DCARDREFUSED", "Decline - The card has reached the credit limit.", "61", "02"},
	"INVALID_CVN":                      {"211", "DCV", "Decline - Invalid Card Verification Number (CVN).", "N7", "03"},
	"CV_FAILED":                        {"230", "DCV", "Soft Decline - The authorization request was approved by the issuing bank but flagged because it did not pass the CVN check.", "00", ""},
	"INVALID_ACCOUNT":                  {"231", "DINVALIDCARD", "Decline - Invalid account number.", "14", "01"},
	"GENERAL_DECLINE":                  {"233", "DCARDREFUSED", "Decline - General decline by the processor.", "05", "02"},
	"CONSUMER_AUTHENTICATION_REQUIRED": {"475", "DAUTHENTICATE", "The cardholder is enrolled in Payer Authentication. Please authenticate the cardholder before continuing with the transaction.", "", ""},
	"CONSUMER_AUTHENTICATION_FAILED":   {"476", "DAUTHENTICATIONFAILED", "Encountered a Payer Authentication problem. Payer could not be authenticated.", "", ""},
	"DECISION_PROFILE_REVIEW":          {"480", "DREVIEW", "The order is marked for review by Decision Manager.", "00", ""},
	"DECISION_PROFILE_REJECT":          {"481", "DREJECT", "The order has been rejected by Decision Manager.", "00", ""},
	"ISSUER_UNAVAILABLE":               {"207", "DCARDREFUSED", "Decline - Issuing bank unavailable.", "91", "02"},
	"CVN_NOT_MATCH":                    {"209", "DCV", "Decline - The card verification number does not match.", "N7", "03"},
	"BLACKLISTED_CUSTOMER":             {"221", "DCARDREFUSED", "Decline - The customer matched an entry on the processor's negative file.", "05", "01"},
	"SUSPENDED_ACCOUNT":                {"222", "DCARDREFUSED", "Decline - Customer's account is frozen.", "05", "01"},
	"PAYMENT_REFUSED":                  {"223", "DPAYMENTREFUSED", "Decline - Payment refused.", "05", "02"},
	"INVALID_MERCHANT_CONFIGURATION":   {"234", "EINVALIDDATA", "Decline - There is a problem with your merchant configuration.", "", "98"},
	"PROCESSOR_ERROR":                  {"236", "ESYSTEM", "Decline - Processor failure.", "96", "02"},
	"BLOCKED_BY_CARDHOLDER":            {"203", "DCARDREFUSED", "Decline - The cardholder has stopped such payments.", "R1", "01"},
	"DECLINED_CHECK":                   {"203", "DCARDREFUSED", "Decline - The check was declined.", "05", "02"},
	"ACH_VERIFICATION_FAILED":          {"203", "DCARDREFUSED", "Decline - The bank account could not be verified.", "05", "03"},
	"ALLOWABLE_PIN_RETRIES_EXCEEDED":   {"203", "DCARDREFUSED", "Decline - The allowed number of PIN entries is exceeded.", "75", "02"},
	"SCORE_EXCEEDS_THRESHOLD":          {"400", "DSCORE", "The fraud score exceeds your threshold.", "00", ""},
	"PENDING_AUTHENTICATION":           {"475", "DAUTHENTICATE", "The cardholder is enrolled in Payer Authentication.", "", ""},
	"CUSTOMER_WATCHLIST_MATCH":         {"700", "DRESTRICTED", "The customer matched the Denied Parties List.", "", ""},
	"ADDRESS_COUNTRY_WATCHLIST_MATCH":  {"701", "DRESTRICTED", "The country of the address is on the list of those that are not served.", "", ""},
	"EMAIL_COUNTRY_WATCHLIST_MATCH":    {"702", "DRESTRICTED", "The country of the email address is on the list of those that are not served.", "", ""},
	"IP_COUNTRY_WATCHLIST_MATCH":       {"703", "DRESTRICTED", "The country of the IP address is on the list of those that are not served.", "", ""},
	"INVALID_DATA":                     {"102", "DINVALIDDATA", "Declined - One or more fields in the request contains invalid data", "", ""},
	newWord:                            {"999", "DNEW", "Decline - For a reason that is new.", "05", ""},
	"SYSTEM_ERROR":                     {"150", "ESYSTEM", "Error - General system failure.", "", ""},
	"SERVER_TIMEOUT":                   {"151", "ETIMEOUT", "Error - The request was received but there was a server timeout.", "", ""},
	"SERVICE_TIMEOUT":                  {"152", "ETIMEOUT", "Error - The request was received, but a service did not finish running in time.", "", ""},
}

// partialFacts stand in for a partial approval, which has no reason.
var partialFacts = reasonFacts{"110", "SPARTIALAPPROVAL", "Only a partial amount was approved.", "10", ""}

func (o outcome) facts() reasonFacts {
	if o.status == statusPartial {
		return partialFacts
	}
	return reasons[o.reason]
}

// The published amount triggers, by the amount without its decimals. Only whole amounts are triggers.
var (
	vpcAmounts = map[string]outcome{
		"40":   {status: statusReview, reason: "AVS_FAILED", avs: "N"},
		"50":   {status: statusReview, reason: "AVS_FAILED", avs: "N"},
		"6001": {status: statusReview, reason: "AVS_FAILED", avs: "N"},
		"6002": {status: statusReview, reason: "CV_FAILED", cvn: "N"},
		"4001": {status: statusReview, reason: "CONTACT_PROCESSOR"},
		"4002": {status: statusReview, reason: "CONTACT_PROCESSOR"},
		"4003": declined("PROCESSOR_DECLINED"),
		"4004": declined("PROCESSOR_DECLINED"),
		"4005": declined("PROCESSOR_DECLINED"),
		"4006": {status: statusServerError, reason: "SYSTEM_ERROR"},
		"4007": declined("PROCESSOR_DECLINED"),
		"4010": declined("PROCESSOR_DECLINED"),
		"4012": declined("UNAUTHORIZED_CARD"),
		"4014": declined("INVALID_ACCOUNT"),
		"4051": declined("INSUFFICIENT_FUND"),
		"4054": declined("EXPIRED_CARD"),
		"4057": declined("UNAUTHORIZED_CARD"),
		"4061": declined("EXCEEDS_CREDIT_LIMIT"),
		"4062": declined("INVALID_CVN"),
		"4091": {status: statusServerError, reason: "SYSTEM_ERROR"},
		"4096": {status: statusServerError, reason: "SYSTEM_ERROR"},
	}
	paymentechAmounts = map[string]outcome{
		"401":  {status: statusReview, reason: "CONTACT_PROCESSOR"},
		"164":  declined("PROCESSOR_DECLINED"),
		"1500": declined("PROCESSOR_DECLINED"),
		"2229": declined("PROCESSOR_DECLINED"),
		"2230": declined("PROCESSOR_DECLINED"),
		"2000": {status: statusServerError, reason: "SYSTEM_ERROR"},
		"2201": declined("INVALID_ACCOUNT"),
		"2202": declined("GENERAL_DECLINE"),
		"2203": declined("GENERAL_DECLINE"),
		"2204": declined("GENERAL_DECLINE"),
		"2205": declined("GENERAL_DECLINE"),
		"2225": declined("GENERAL_DECLINE"),
		"2227": declined("GENERAL_DECLINE"),
		"20":   {status: statusAuthorized, avs: "X"},
		"2836": {status: statusReview, reason: "AVS_FAILED", avs: "N"},
		"2837": {status: statusAuthorized, avs: "R"},
	}
	// vpcZeroCVNs are the checks of a security code with an amount of zero.
	vpcZeroCVNs = map[string]outcome{
		"002": {status: statusReview, reason: "CV_FAILED", cvn: "N"},
		"003": {status: statusAuthorized, cvn: "P"},
		"004": {status: statusAuthorized, cvn: "S"},
		"005": {status: statusAuthorized, cvn: "U"},
	}
)

// decide says what a payment comes to: expiry, then the card's number, then authentication, then the amount.
func (s *Simulator) decide(req *paymentRequest, pan card, total amount) outcome {
	if pan.expired(s.now()) {
		return declined("EXPIRED_CARD")
	}
	if o, ok := cardOutcome(pan.Number); ok {
		return s.relax(req, o)
	}
	actions := req.ProcessingInformation.ActionList
	if slices.Contains(actions, "VALIDATE_CONSUMER_AUTHENTICATION") {
		if slices.Contains(challengeFails, pan.Number) || slices.Contains(frictionlessFails, pan.Number) {
			return declined("CONSUMER_AUTHENTICATION_FAILED")
		}
	} else if slices.Contains(actions, "CONSUMER_AUTHENTICATION") {
		if slices.Contains(challengeSucceeds, pan.Number) || slices.Contains(challengeFails, pan.Number) {
			return outcome{status: statusPendingAuthentication, reason: "CONSUMER_AUTHENTICATION_REQUIRED"}
		}
		if slices.Contains(frictionlessFails, pan.Number) {
			return declined("CONSUMER_AUTHENTICATION_FAILED")
		}
	}
	return s.relax(req, s.amountOutcome(req, pan, total))
}

func (s *Simulator) amountOutcome(req *paymentRequest, pan card, total amount) outcome {
	var table map[string]outcome
	switch s.cfg.Processor {
	case processorVPC:
		if o, ok := vpcZeroCVNs[pan.SecurityCode]; ok && total == 0 {
			return o
		}
		if total == 6003*unit && req.ProcessingInformation.AuthorizationOptions.partial() {
			return outcome{status: statusPartial}
		}
		table = vpcAmounts
	case processorPaymentech:
		if total == 0 && req.OrderInformation.BillTo.PostalCode == "28650" {
			return outcome{status: statusReview, reason: "AVS_FAILED", avs: "N"}
		}
		table = paymentechAmounts
	}
	if whole, exact := strings.CutSuffix(total.in("USD"), ".00"); exact && total%unit == 0 {
		if o, ok := table[whole]; ok {
			return o
		}
	}
	return approved
}

// relax applies what the request tells the account to overlook.
func (s *Simulator) relax(req *paymentRequest, o outcome) outcome {
	options := req.ProcessingInformation.AuthorizationOptions
	skipRisk := slices.Contains(req.ProcessingInformation.ActionList, "DECISION_SKIP")
	if o.reason == "AVS_FAILED" && options.IgnoreAVSResult.isTrue() ||
		o.reason == "CV_FAILED" && options.IgnoreCVResult.isTrue() ||
		strings.HasPrefix(o.reason, "DECISION_PROFILE_") && skipRisk {
		o.status, o.reason = statusAuthorized, ""
	}
	return o
}
