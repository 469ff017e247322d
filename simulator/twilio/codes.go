package twilio

import (
	"cmp"
	"net/http"

	"paythread/simulator/faults"
)

// errorRow is what is known of a code: the HTTP status of a refusal, the status
// that a message ends in, and the text.
type errorRow struct {
	http   int    // 400 when 0
	ending string // undelivered when empty
	text   string
}

// failed is the ending of what never left Twilio.
const statusFailed = "failed"

// errorRows are the codes of Twilio's error reference that messaging meets.
var errorRows = map[int]errorRow{
	20001: {text: "Unknown parameters"},
	20003: {http: 401, text: "Authenticate"},
	20005: {http: 403, ending: statusFailed, text: "Account not active"},
	20404: {http: 404, text: "The requested resource was not found"},
	20429: {http: 429, text: "Too Many Requests"},
	20500: {http: 500, text: "Internal Server Error"},
	20503: {http: 503, text: "Service Unavailable"},

	21211: {text: "The 'To' number is not a valid phone number."},
	21212: {text: "The 'From' number is not a valid phone number, shortcode, or alphanumeric sender ID."},
	21408: {http: 400, text: "Permission to send an SMS has not been enabled for the region indicated by the 'To' number"},
	21602: {text: "Message body is required."},
	21603: {text: "A 'From' phone number is required."},
	21604: {text: "A 'To' phone number is required."},
	21606: {text: "The 'From' phone number provided is not a valid message-capable Twilio phone number for this destination/account."},
	21608: {text: "The number is unverified. Trial accounts cannot send messages to unverified numbers"},
	21609: {text: "The 'StatusCallback' URL is not a valid URL."},
	21610: {ending: statusFailed, text: "Attempt to send to unsubscribed recipient"},
	21611: {http: 429, text: "This 'From' number has exceeded the maximum number of queued messages"},
	21612: {text: "The 'To' phone number is not currently reachable using the 'From' phone number via SMS"},
	21614: {text: "'To' number is not a valid mobile number"},
	21617: {text: "The concatenated message body exceeds the 1600 character limit"},
	21655: {text: "The ContentSid is Invalid"},
	21656: {text: "The ContentVariables Parameter is invalid"},
	21701: {text: "The Messaging Service does not exist"},
	21703: {text: "The Messaging Service does not contain a phone number for this channel"},
	21704: {text: "The Messaging Service contains no phone numbers"},
	21705: {text: "The Messaging Service is invalid"},

	30001: {ending: statusFailed, text: "Queue overflow"},
	30002: {ending: statusFailed, text: "Account suspended"},
	30003: {text: "Unreachable destination handset"},
	30004: {text: "Message blocked"},
	30005: {text: "Unknown destination handset"},
	30006: {text: "Landline or unreachable carrier"},
	30007: {text: "Message filtered"},
	30008: {text: "Unknown error"},
	30018: {text: "Destination carrier requires sender ID pre-registration"},
	30022: {ending: statusFailed, text: "US A2P 10DLC - Rate Limits Exceeded"},
	30023: {ending: statusFailed, text: "US A2P 10DLC - Daily Message Cap Reached"},
	30024: {text: "Numeric Sender ID Not Provisioned on Carrier"},
	30027: {ending: statusFailed, text: "US A2P 10DLC - T-Mobile Daily Message Limit Reached"},
	30032: {ending: statusFailed, text: "Toll-Free Number Has Not Been Verified"},
	30034: {text: "US A2P 10DLC - Message from an Unregistered Number"},
	30036: {ending: statusFailed, text: "Validity Period Expired"},
	30410: {ending: statusFailed, text: "Provider Timeout Error"},

	63003: {text: "Channel could not find To address"},
	63005: {ending: statusFailed, text: "Channel did not accept given content"},
	63007: {text: "Twilio could not find a Channel with the specified From address"},
	63013: {ending: statusFailed, text: "This message send failed because it violates Channel provider's policy"},
	63014: {text: "Message Failed because user blocked sender"},
	63015: {text: "Channel Sandbox can only send messages to phone numbers that have joined the Sandbox"},
	63016: {text: "Failed to send freeform message because you are outside the allowed window"},
	63017: {http: 429, text: "Rate limit exceeded for the account"},
	63018: {http: 429, ending: statusFailed, text: "Rate limit exceeded for Channel"},
	63020: {ending: statusFailed, text: "Twilio encountered a Business Manager account error"},
	63021: {ending: statusFailed, text: "Channel invalid content error"},
	63024: {text: "Invalid message recipient"},
	63027: {ending: statusFailed, text: "Template does not exist for a language and locale"},
	63028: {ending: statusFailed, text: "Number of parameters provided does not match the expected number of parameters"},
	63029: {ending: statusFailed, text: "The receiver failed to download the template"},
	63030: {ending: statusFailed, text: "Unsupported parameter for type of channels message"},
	63032: {text: "We cannot send this message to this user because of a WhatsApp limitation"},
	63033: {text: "Recipient blocked to receive message"},
	63038: {http: 429, ending: statusFailed, text: "Account exceeded the daily messages limit"},
	63040: {ending: statusFailed, text: "Template Paused"},
	63041: {ending: statusFailed, text: "Template Disabled"},
	63049: {text: "Meta chose not to deliver this WhatsApp marketing message"},
	63062: {ending: statusFailed, text: "Marketing message terms have not been accepted"},
}

// errorText is the sentence of a code.
func errorText(code int) string { return cmp.Or(errorRows[code].text, "Unknown error") }

// coded returns the refusal with a code; a status of 0 means the usual one.
func coded(code, status int) *apiError {
	return &apiError{status: cmp.Or(status, errorRows[code].http, http.StatusBadRequest), code: code, message: errorText(code)}
}

// endingOf is the status of a message that fails with a code.
func endingOf(code int) string { return cmp.Or(errorRows[code].ending, statusUndelivered) }

// fault takes the fault of a call, and the refusal that it may be.
func (s *Simulator) fault(w http.ResponseWriter, call string) (faults.Fault, *apiError) {
	fault := s.set.Take(call)
	code, status, refused := fault.Refusal()
	if !refused {
		return fault, nil
	}
	fault.SetHeaders(w.Header())
	return fault, coded(code, status)
}
