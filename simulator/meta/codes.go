package meta

import (
	"cmp"
	"net/http"

	"paythread/simulator/faults"
)

// documented are the codes of Meta's error reference, with the HTTP status that
// it lists for each; what an answer or a failed status of that code says. Those
// that this side gives by itself are in errors.go.
var documented = index(
	graphError{status: 401, code: 0, title: "AuthException", details: "We were unable to authenticate the app user."},
	graphError{status: 400, code: 1, title: "API Unknown", details: "Invalid request or possible server error."},
	graphError{status: 503, code: 2, title: "API Service", details: "Temporary due to downtime or due to being overloaded.", transient: true},
	graphError{status: 500, code: 3, title: "API Method", details: "Capability or permissions issue."},
	graphError{status: 400, code: 4, title: "API Too Many Calls", details: "The app has reached its API call rate limit.", transient: true},
	graphError{status: 403, code: 10, title: "Permission Denied", details: "Permission is either not granted or has been removed."},
	graphError{status: 400, code: 33, title: "Parameter value is not valid", details: "The business phone number has been deleted."},
	*errParameter, *errNoToken, *errBadToken,
	graphError{status: 403, code: 200, title: "API Permission", details: "Permission is either not granted or has been removed."},
	graphError{status: 403, code: 368, title: "Temporarily blocked for policies violations", details: "The account has been restricted or disabled for violating a platform policy."},
	graphError{status: 400, code: 613, title: "Calls to this api have exceeded the rate limit.", transient: true},
	graphError{status: 400, code: 80007, title: "Rate limit issues", details: "The WhatsApp Business Account has reached its rate limit."},
	*errBlocked, *errThroughput,
	graphError{status: 400, code: 130472, title: "User's number is part of an experiment", details: "Message was not sent as part of an experiment."},
	graphError{status: 403, code: 130497, title: "Business account is restricted from messaging users in this country."},
	graphError{status: 500, code: 131000, title: "Something went wrong", details: "Message failed to send due to an unknown error."},
	graphError{status: 403, code: 131005, title: "Access denied", details: "Permission is either not granted or has been removed."},
	*errMissing, *errValue,
	graphError{status: 400, code: 131014, title: "Request for url failed"},
	graphError{status: 500, code: 131016, title: "Service unavailable", details: "A service is temporarily unavailable."},
	*errToSelf, *errUndeliverable,
	graphError{status: 400, code: 131030, title: "Recipient phone number not in allowed list", details: "Add the recipient phone number to the recipient list and try again."},
	*errLocked,
	graphError{status: 400, code: 131037, title: "WhatsApp provided number needs display name approval before message can be sent."},
	*errPayment,
	graphError{status: 500, code: 131045, title: "Incorrect certificate", details: "Message failed to send due to a phone number registration error."},
	*errOutsideWindow,
	graphError{status: 400, code: 131048, title: "Spam rate limit hit", details: "There are restrictions on how many messages can be sent from this phone number, as too many previous messages were blocked or flagged as spam."},
	graphError{status: 400, code: 131049, title: "This message was not delivered to maintain healthy ecosystem engagement."},
	*errStopped, *errMessageType,
	graphError{status: 400, code: 131052, title: "Media download error"},
	graphError{status: 400, code: 131053, title: "Media upload error"},
	graphError{status: 400, code: 131055, title: "Method not allowed"},
	*errPairRate,
	graphError{status: 500, code: 131057, title: "Account in maintenance mode"},
	*errUserIDHere,
	graphError{status: 400, code: 131063, title: "Marketing templates are switched off on Cloud API"},
	graphError{status: 400, code: 131064, title: "Messages limited after a template was misclassified"},
	*errParamCount, *errNoTemplate, *errTemplateLong,
	graphError{status: 400, code: 132007, title: "Template Format Character Policy Violated"},
	graphError{status: 400, code: 132008, title: "Template parameter format mismatch"},
	*errParamFormat, *errTemplatePaused, *errTemplateDisabled, *errTemplateParam,
	graphError{status: 400, code: 132068, title: "Flow is in blocked state"},
	graphError{status: 400, code: 132069, title: "Flow is in throttled state"},
	graphError{status: 500, code: 133000, title: "Incomplete Deregistration"},
	graphError{status: 503, code: 133004, title: "Server Temporarily Unavailable"},
	graphError{status: 400, code: 133005, title: "Two step verification PIN Mismatch"},
	graphError{status: 400, code: 133006, title: "Phone number re-verification needed"},
	graphError{status: 400, code: 133008, title: "Too Many two step verification PIN Guesses"},
	graphError{status: 400, code: 133009, title: "Two step verification PIN Guessed Too Fast"},
	*errUnregistered,
	graphError{status: 400, code: 133015, title: "Please wait a few minutes before attempting to register this phone number"},
	graphError{status: 400, code: 133016, title: "Account register deregister rate limit exceeded"},
	graphError{status: 400, code: 134011, title: "WhatsApp Payments terms of service has not been accepted."},
	graphError{status: 400, code: 134100, title: "Only marketing messages supported"},
	graphError{status: 500, code: 134101, title: "Template is syncing"},
	graphError{status: 500, code: 134102, title: "Template is unavailable for use"},
	graphError{status: 400, code: 135000, title: "Generic user error", details: "Message failed to send because of an unknown error with your request parameters."},
	*errIdentity,
)

func index(rows ...graphError) map[int]graphError {
	table := make(map[int]graphError, len(rows))
	for _, e := range rows {
		table[e.code] = e
	}
	return table
}

// coded returns the error of a code. A code that the reference does not have is
// answered like an unknown error; a status of 0 means the documented one.
func coded(code, status int) *graphError {
	e, known := documented[code]
	if !known {
		e = graphError{status: http.StatusBadRequest, code: code, title: "Unknown error"}
	}
	e.status = cmp.Or(status, e.status)
	return &e
}

// rated are the codes for too many calls; usage figures come with them.
var rated = map[int]bool{4: true, 613: true, 80007: true, 130429: true, 131048: true, 131056: true}

// fault takes the fault of a call, and the refusal that it may be.
func (s *Simulator) fault(w http.ResponseWriter, call string) (faults.Fault, *graphError) {
	fault := s.set.Take(call)
	code, status, refused := fault.Refusal()
	if !refused {
		return fault, nil
	}
	fault.SetHeaders(w.Header())
	return fault, coded(code, status)
}
