package clickatell

import (
	"cmp"
	"net/http"
	"strconv"

	"paythread/simulator/faults"
)

// refusal is one row of the errors table: why a call or a message was not
// accepted.
type refusal struct {
	code   int
	status int // HTTP
	text   string
	each   bool // it is about one message of a call, not about the call
}

// The refusals that the simulator comes to by itself.
const (
	codeBadKey        = 1
	codeNoCredit      = 20
	codeMalformed     = 21
	codeTooMany       = 22
	codeBadParameter  = 23
	codeTooLong       = 24
	codeBadRecipient  = 25
	codeOptedOut      = 26
	codeNotOnChannel  = 27
	codeContentType   = 30
	codeNoChannel     = 39
	codeNoResource    = 41
	codeNoMethod      = 42
	codeRateLimit     = 43
	codeFromSuspended = 44
	codeFromUnknown   = 45
	codeTooManyParts  = 100
	codeOneWay        = 101
)

// refusals is the errors table of the One API, by code.
var refusals = byCode([]refusal{
	{codeBadKey, http.StatusUnauthorized, "Invalid or missing Integration API Key", false},
	{2, http.StatusBadRequest, "Account is not active", false},
	{3, http.StatusBadRequest, "Integration is not active", false},
	{7, http.StatusUnauthorized, "Originating IP address is not approved in your account", false},
	{18, http.StatusInternalServerError, "Internal error", false},
	{19, http.StatusServiceUnavailable, "Internal error, please retry", false},
	{codeNoCredit, http.StatusPaymentRequired, "Insufficient account balance", true},
	{codeMalformed, http.StatusBadRequest, "Payload data is malformed", false},
	{codeTooMany, http.StatusBadRequest, "Maximum messages per request payload exceeded", false},
	{codeBadParameter, http.StatusBadRequest, "Invalid or missing parameter", true},
	{codeTooLong, http.StatusBadRequest, "Maximum message content size exceeded", true},
	{codeBadRecipient, http.StatusBadRequest, "Invalid recipient address", true},
	{codeOptedOut, http.StatusBadRequest, "Recipient opted out", true},
	{codeNotOnChannel, http.StatusBadRequest, "Recipient not available on channel", true},
	{28, http.StatusBadRequest, "Recipient not available on sandbox", true},
	{codeContentType, http.StatusBadRequest, "Content type not supported", true},
	{31, http.StatusBadRequest, "Media file size exceeds limit", true},
	{32, http.StatusBadRequest, "Media payload size exceeds limit", true},
	{33, http.StatusBadRequest, "Media error", true},
	{38, http.StatusBadRequest, "Channel is not active on integration", true},
	{codeNoChannel, http.StatusBadRequest, "Channel is not available on integration", true},
	{40, http.StatusBadRequest, "Character set is not supported", true},
	{codeNoResource, http.StatusBadRequest, "Resource does not exist", false},
	{codeNoMethod, http.StatusBadRequest, "HTTP method is not supported on this resource", false},
	{codeRateLimit, http.StatusBadRequest, "Rate limit", false}, // 400, where others answer 429
	{codeFromSuspended, http.StatusBadRequest, "FROM number is suspended", true},
	{codeFromUnknown, http.StatusBadRequest, "FROM number is not related to integration", true},
	{46, http.StatusBadRequest, "Recipient not available on demo", true},
	{codeTooManyParts, http.StatusBadRequest, "Maximum message parts exceeded", true},
	{codeOneWay, http.StatusBadRequest, "Destination does not support two-way messaging", true},
	{110, http.StatusBadRequest, "USA Country limit: must use two-way integration", true},
	{111, http.StatusBadRequest, "USA Country limit: must enable STOP/SUBSCRIBE commands on integration", true},
})

func byCode(rows []refusal) map[int]refusal {
	table := make(map[int]refusal, len(rows))
	for _, row := range rows {
		table[row.code] = row
	}
	return table
}

// refuse returns a row of the errors table, with what it is about where the text
// names that.
func refuse(code int, about ...string) *refusal {
	r := refusals[code]
	for _, what := range about {
		r.text += ": " + what
	}
	return &r
}

// fault takes the fault of a call, and the refusal that it may be: with the
// documented HTTP status unless the rule has another.
func (s *Simulator) fault(w http.ResponseWriter, call string) (faults.Fault, *refusal) {
	fault := s.set.Take(call)
	code, httpStatus, refused := fault.Refusal()
	if !refused {
		return fault, nil
	}
	fault.SetHeaders(w.Header())
	r, documented := refusals[code]
	if !documented {
		r = refusal{code: code, status: http.StatusBadRequest, text: "Error"}
	}
	r.status = cmp.Or(httpStatus, r.status)
	return fault, &r
}

// status is one row of the message status table, and its row in the table of the
// older APIs, which carried SMS only. The two number alike and mean different
// things: 4, 5 and 6 are sent, delivered and read in one, and delivered and two
// failures in the other.
type status struct {
	code   int
	name   string
	legacy legacyStatus
}

type legacyStatus struct {
	code       int
	name, text string
}

// legacyFailure is what the older APIs said of most failures.
var legacyFailure = legacyStatus{7, "ERROR_DELIVERING_MESSAGE", "Error delivering message"}

var (
	statusQueued       = status{2, "QUEUED", legacyStatus{2, "MESSAGE_QUEUED", "Message queued"}}
	statusSent         = status{4, "SENT_TO_SUPPLIER", legacyStatus{3, "DELIVERED_TO_GATEWAY", "Delivered to gateway"}}
	statusDelivered    = status{5, "DEVICE_ACK", legacyStatus{4, "RECEIVED_BY_RECIPIENT", "Received by recipient"}}
	statusRead         = status{6, "READ", legacyStatus{}} // WhatsApp only
	statusExpired      = status{20, "EXPIRED", legacyStatus{10, "MESSAGE_EXPIRED", "Message expired"}}
	statusStopped      = status{21, "STOPPED_BY_USER", legacyStatus{6, "USER_CANCELLED_MESSAGE_DELIVERY", "User cancelled message delivery"}}
	statusUndelivered  = status{23, "DELIVERY_FAILURE", legacyFailure}
	statusNotOnChannel = status{29, "RECIPIENT_DOES_NOT_EXIST", legacyFailure}
	statusNoWindow     = status{131, "WHATSAPP_RE_ENGAGEMENT_REQUIRED", legacyFailure}
	statusNoTemplate   = status{134, "WHATSAPP_HSM_NOT_AVAILABLE", legacyFailure}
	statusLongTemplate = status{140, "WHATSAPP_TEMPLATE_TEXT_TOO_LONG", legacyFailure}
	statusMismatch     = status{141, "WHATSAPP_TEMPLATE_FORMAT_MISMATCH", legacyFailure}
	statusBadParameter = status{142, "WHATSAPP_TEMPLATE_FORMATTING_POLICY_VIOLATED", legacyFailure}
)

// failures are the statuses that a message can end with.
var failures = []status{
	statusExpired, statusStopped,
	{22, "STOPPED_BY_ADMIN", legacyFailure},
	statusUndelivered,
	{24, "EMULATED", legacyStatus{4, "RECEIVED_BY_RECIPIENT", "Received by recipient"}}, // the sandbox's delivery
	{25, "INSUFFICIENT_ACCOUNT_BALANCE", legacyStatus{12, "OUT_OF_CREDIT", "Out of credit"}},
	{26, "VOLUME_LIMIT", legacyStatus{14, "MAXIMUM_MT_LIMIT_EXCEEDED", "Maximum MT limit exceeded"}},
	{27, "VOLUME_LIMIT_DAILY", legacyStatus{14, "MAXIMUM_MT_LIMIT_EXCEEDED", "Maximum MT limit exceeded"}},
	{28, "VOLUME_LIMIT_MONTHLY", legacyStatus{14, "MAXIMUM_MT_LIMIT_EXCEEDED", "Maximum MT limit exceeded"}},
	statusNotOnChannel,
	{60, "ENCRYPTION_ACCESS_DENIED", legacyFailure},
	{61, "ENCRYPTION_CONTENT_ERROR", legacyFailure},
	{80, "MEDIA_NOT_FOUND", legacyFailure},
	{81, "MEDIA_SIZE_ERROR", legacyFailure},
	{82, "MEDIA_CHECKSUM_FAILURE", legacyFailure},
	{83, "MEDIA_REJECTED_BY_SUPPLIER", legacyFailure},
	{84, "MEDIA_METADATA_ERROR", legacyFailure},
	{85, "MEDIA_ACCESS_ERROR", legacyFailure},
	{100, "ROUTING_ERROR", legacyStatus{9, "ROUTING_ERROR", "Routing error"}},
	{130, "WHATSAPP_ACCOUNT_PAYMENT_ISSUE", legacyFailure},
	statusNoWindow,
	{132, "WHATSAPP_SPAM_RATE_LIMIT_REACHED", legacyFailure},
	{133, "WHATSAPP_SERVER_RATE_LIMIT", legacyFailure},
	statusNoTemplate,
	{139, "WHATSAPP_EXPERIMENTAL_NUMBER", legacyFailure},
	statusLongTemplate, statusMismatch, statusBadParameter,
}

// failureOf returns the status with that code. Any code is taken: Clickatell adds
// statuses, and a receiver has to live with those it has not heard of.
func failureOf(code int) status {
	for _, st := range failures {
		if st.code == code {
			return st
		}
	}
	return status{code, "STATUS_" + strconv.Itoa(code), legacyFailure}
}
