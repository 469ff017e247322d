package clickatell

import "net/http"

// refusal is one row of the errors table: why a call or a message was not
// accepted.
type refusal struct {
	code   int
	status int // HTTP
	text   string
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
var refusals = table([]refusal{
	{codeBadKey, http.StatusUnauthorized, "Invalid or missing Integration API Key"},
	{2, http.StatusBadRequest, "Account is not active"},
	{3, http.StatusBadRequest, "Integration is not active"},
	{7, http.StatusUnauthorized, "Originating IP address is not approved in your account"},
	{18, http.StatusInternalServerError, "Internal error"},
	{19, http.StatusServiceUnavailable, "Internal error, please retry"},
	{codeNoCredit, http.StatusPaymentRequired, "Insufficient account balance"},
	{codeMalformed, http.StatusBadRequest, "Payload data is malformed"},
	{codeTooMany, http.StatusBadRequest, "Maximum messages per request payload exceeded"},
	{codeBadParameter, http.StatusBadRequest, "Invalid or missing parameter"},
	{codeTooLong, http.StatusBadRequest, "Maximum message content size exceeded"},
	{codeBadRecipient, http.StatusBadRequest, "Invalid recipient address"},
	{codeOptedOut, http.StatusBadRequest, "Recipient opted out"},
	{codeNotOnChannel, http.StatusBadRequest, "Recipient not available on channel"},
	{28, http.StatusBadRequest, "Recipient not available on sandbox"},
	{codeContentType, http.StatusBadRequest, "Content type not supported"},
	{31, http.StatusBadRequest, "Media file size exceeds limit"},
	{32, http.StatusBadRequest, "Media payload size exceeds limit"},
	{33, http.StatusBadRequest, "Media error"},
	{38, http.StatusBadRequest, "Channel is not active on integration"},
	{codeNoChannel, http.StatusBadRequest, "Channel is not available on integration"},
	{40, http.StatusBadRequest, "Character set is not supported"},
	{codeNoResource, http.StatusBadRequest, "Resource does not exist"},
	{codeNoMethod, http.StatusBadRequest, "HTTP method is not supported on this resource"},
	{codeRateLimit, http.StatusBadRequest, "Rate limit"}, // 400, where others answer 429
	{codeFromSuspended, http.StatusBadRequest, "FROM number is suspended"},
	{codeFromUnknown, http.StatusBadRequest, "FROM number is not related to integration"},
	{46, http.StatusBadRequest, "Recipient not available on demo"},
	{codeTooManyParts, http.StatusBadRequest, "Maximum message parts exceeded"},
	{codeOneWay, http.StatusBadRequest, "Destination does not support two-way messaging"},
	{110, http.StatusBadRequest, "USA Country limit: must use two-way integration"},
	{111, http.StatusBadRequest, "USA Country limit: must enable STOP/SUBSCRIBE commands on integration"},
})

func table(rows []refusal) map[int]refusal {
	byCode := make(map[int]refusal, len(rows))
	for _, row := range rows {
		byCode[row.code] = row
	}
	return byCode
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

var (
	statusQueued      = status{2, "QUEUED", legacyStatus{2, "MESSAGE_QUEUED", "Message queued"}}
	statusSent        = status{4, "SENT_TO_SUPPLIER", legacyStatus{3, "DELIVERED_TO_GATEWAY", "Delivered to gateway"}}
	statusDelivered   = status{5, "DEVICE_ACK", legacyStatus{4, "RECEIVED_BY_RECIPIENT", "Received by recipient"}}
	statusExpired     = status{20, "EXPIRED", legacyStatus{10, "MESSAGE_EXPIRED", "Message expired"}}
	statusStopped     = status{21, "STOPPED_BY_USER", legacyStatus{6, "USER_CANCELLED_MESSAGE_DELIVERY", "User cancelled message delivery"}}
	statusUndelivered = status{23, "DELIVERY_FAILURE", legacyStatus{7, "ERROR_DELIVERING_MESSAGE", "Error delivering message"}}

	statusRead         = status{code: 6, name: "READ"}
	statusNotOnChannel = status{code: 29, name: "RECIPIENT_DOES_NOT_EXIST"}
	statusNoWindow     = status{code: 131, name: "WHATSAPP_RE_ENGAGEMENT_REQUIRED"}
	statusNoTemplate   = status{code: 134, name: "WHATSAPP_HSM_NOT_AVAILABLE"}
	statusLongTemplate = status{code: 140, name: "WHATSAPP_TEMPLATE_TEXT_TOO_LONG"}
	statusMismatch     = status{code: 141, name: "WHATSAPP_TEMPLATE_FORMAT_MISMATCH"}
	statusBadParameter = status{code: 142, name: "WHATSAPP_TEMPLATE_FORMATTING_POLICY_VIOLATED"}
)
