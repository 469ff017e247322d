package meta

import (
	"encoding/json"
	"fmt"
	"net/http"
)

// graphError is one refusal: in an answer, or in a failed status.
type graphError struct {
	status  int
	code    int
	subcode int
	kind    string // the answer's "type"; OAuthException unless set
	title   string
	details string
	// transient is Graph's own word on whether trying again may help.
	transient bool
}

// with returns a copy that says what exactly was wrong.
func (e graphError) with(format string, args ...any) *graphError {
	e.details = fmt.Sprintf(format, args...)
	return &e
}

// at returns a copy that is answered with another HTTP status.
func (e graphError) at(status int) *graphError {
	e.status = status
	return &e
}

// The errors of the Cloud API that this side can give.
var (
	errNoToken      = &graphError{status: 401, code: 104, title: "An access token is required to request this resource."}
	errBadToken     = &graphError{status: 401, code: 190, title: "Invalid OAuth access token - Cannot parse access token"}
	errExpiredToken = &graphError{status: 401, code: 190, subcode: 463, title: "Error validating access token: Session has expired"}
	errPath         = &graphError{status: 400, code: 2500, title: "Unknown path components"}

	errParameter   = &graphError{status: 400, code: 100, title: "Invalid parameter"}
	errMissing     = &graphError{status: 400, code: 131008, title: "Required parameter is missing"}
	errValue       = &graphError{status: 400, code: 131009, title: "Parameter value is not valid"}
	errToSelf      = &graphError{status: 400, code: 131021, title: "Recipient cannot be sender"}
	errMessageType = &graphError{status: 400, code: 131051, title: "Message type is currently not supported"}

	errThroughput   = &graphError{status: 400, code: 130429, title: "Rate limit hit"}
	errPairRate     = &graphError{status: 400, code: 131056, title: "(Business Account, Consumer Account) pair rate limit hit"}
	errUnregistered = &graphError{status: 400, code: 133010, title: "Account not registered"}

	errParamCount       = &graphError{status: 400, code: 132000, title: "Number of parameters does not match the expected number of params"}
	errNoTemplate       = &graphError{status: 404, code: 132001, title: "Template name does not exist in the translation"}
	errTemplateLong     = &graphError{status: 400, code: 132005, title: "Translated text too long"}
	errParamFormat      = &graphError{status: 400, code: 132012, title: "Parameter format does not match format in the created template"}
	errTemplatePaused   = &graphError{status: 400, code: 132015, title: "Template is paused"}
	errTemplateDisabled = &graphError{status: 400, code: 132016, title: "Template is disabled"}
	errTemplateParam    = &graphError{status: 400, code: 132018, title: "Template parameter validation failed"}

	errOutsideWindow = &graphError{status: 400, code: 131047, title: "Re-engagement message",
		details: "Message failed to send because more than 24 hours have passed since the customer last replied to this number."}
	errUndeliverable = &graphError{status: 400, code: 131026, title: "Message undeliverable", details: "Message Undeliverable."}
	errLocked        = &graphError{status: 403, code: 131031, title: "Account has been locked",
		details: "The WhatsApp Business Account has been restricted or disabled for violating a platform policy."}
	errRestricted = &graphError{status: 403, code: 368, title: "Temporarily blocked for policies violations",
		details: "The WhatsApp Business Account may not begin conversations for now."}
	errPayment = &graphError{status: 400, code: 131042, title: "Business eligibility payment issue",
		details: "Message failed to send because there were one or more errors related to your payment method."}
	errStopped    = &graphError{status: 400, code: 131050, title: "Unable to deliver the message. This recipient has chosen to stop receiving marketing messages on WhatsApp from your business."}
	errUserIDHere = &graphError{status: 400, code: 131062, title: "Business-scoped user id is not supported for this message"}
	errIdentity   = &graphError{status: 400, code: 137000, title: "Recipient identity key hash mismatch",
		details: "Message failed to send because the customer's identity has changed and has not been acknowledged."}
	errBlocked = &graphError{status: 400, code: 130403, title: "User is blocked",
		details: "Message failed to send because this user and this business do not exchange messages."}
)

// errUnknownObject is the answer to an id that does not exist or that the token
// may not use: Graph does not tell the two apart.
func errUnknownObject(method, id string) *graphError {
	verb := "post"
	if method == http.MethodGet {
		verb = "get"
	}
	return &graphError{status: 400, code: 100, subcode: 33, kind: "GraphMethodException",
		title: fmt.Sprintf("Unsupported %s request. Object with ID '%s' does not exist, cannot be loaded due to missing permissions, or does not support this operation", verb, id)}
}

// errRequired is how Graph itself asks for a parameter.
func errRequired(name string) *graphError {
	return &graphError{status: 400, code: 100, title: "The parameter " + name + " is required."}
}

// message is the "(#code) title" of an answer; token errors go without the code.
func (e *graphError) message() string {
	if e.status == http.StatusUnauthorized || e.subcode == 33 {
		return e.title
	}
	return fmt.Sprintf("(#%d) %s", e.code, e.title)
}

type errorBody struct {
	Message   string     `json:"message"`
	Type      string     `json:"type"`
	Code      int        `json:"code"`
	Subcode   int        `json:"error_subcode,omitempty"`
	Data      *errorData `json:"error_data,omitempty"`
	Transient bool       `json:"is_transient,omitempty"`
	FBTraceID string     `json:"fbtrace_id"`
}

type errorData struct {
	MessagingProduct string `json:"messaging_product,omitempty"`
	Details          string `json:"details"`
}

// write answers a call with the error.
func (e *graphError) write(w http.ResponseWriter) {
	body := errorBody{Message: e.message(), Type: e.kind, Code: e.code, Subcode: e.subcode, Transient: e.transient, FBTraceID: newTrace()}
	if body.Type == "" {
		body.Type = "OAuthException"
	}
	if e.details != "" {
		body.Data = &errorData{MessagingProduct: "whatsapp", Details: e.details}
	}
	writeJSON(w, e.status, struct {
		Error errorBody `json:"error"`
	}{body})
}

func writeJSON(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json; charset=UTF-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the client may have gone
}
