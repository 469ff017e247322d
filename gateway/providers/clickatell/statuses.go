package clickatell

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"paythread/conversations"
	"paythread/gateway/providers"
)

// outcome is what one status says.
type outcome struct {
	code   int    // zero: Clickatell publishes the name without a number
	name   string // as published, without "WHATSAPP_"; empty where only the number is
	status conversations.DeliveryStatus
	reason conversations.FailureReason // of a failed one
}

// refusal is what a failed status means for the messages that follow. No wait
// is documented after a rate limit; the minute is ours.
func (o outcome) refusal() providers.Refusal {
	r := providers.Refusal{Meaning: strings.ToLower(strings.ReplaceAll(o.name, "_", " ")), Reason: o.reason}
	if o.name == "" {
		r.Meaning = legacyMeanings[o.code]
	}
	if o.reason == conversations.FailureRate {
		r.Scope, r.Wait = providers.ScopeSender, time.Minute
	}
	return r
}

// legacyMeanings say what the statuses without a published name are.
var legacyMeanings = map[int]string{
	1: "id not known", 2: "queued", 5: "error with the message", 6: "terminated by the user", 7: "error delivering", 8: "received by Clickatell",
	9: "routing error", 10: "expired", 11: "queued for later", 12: "out of credit", 13: "cancelled", 14: "most messages exceeded",
}

// codes lists the rows of all tables, for the documentation.
func codes() []providers.Code {
	var all []providers.Code
	for _, number := range slices.Sorted(maps.Keys(refusals)) {
		all = append(all, providers.Code{Code: strconv.Itoa(number), Refusal: refusals[number], Answered: true})
	}
	for _, table := range []statusTable{statuses, legacyStatuses} {
		for _, o := range table.rows {
			if o.status == conversations.DeliveryFailed {
				all = append(all, providers.Code{Code: table.code("", o), Refusal: o.refusal(), Reported: true})
			}
		}
	}
	return all
}

// statusTable is the statuses of one of Clickatell's APIs.
type statusTable struct {
	written string // how its numbers are written
	rows    []outcome
}

// lookUp returns what a status says: by its number, which is the same in all
// languages and versions, else by its name. It is false for one that is not
// known.
func (t statusTable) lookUp(number, name string) (outcome, bool) {
	if n, err := strconv.Atoi(strings.TrimSpace(number)); err == nil && n > 0 {
		for _, o := range t.rows {
			if o.code == n {
				return o, true
			}
		}
	}
	name = strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(name)), "WHATSAPP_")
	for _, o := range t.rows {
		if name != "" && o.name == name {
			return o, true
		}
	}
	return outcome{}, false
}

// code is how people find the status in Clickatell's documents: its number as
// it came or as it is published, or its name.
func (t statusTable) code(came string, o outcome) string {
	n, err := strconv.Atoi(strings.TrimSpace(came))
	if err != nil || n <= 0 || n >= 1e6 {
		n = o.code
	}
	if n == 0 {
		return strings.ToLower(o.name)
	}
	return fmt.Sprintf(t.written, n)
}

// statuses are the One API's. Sources:
// docs.clickatell.com/channels/one-api/one-api-message-status-table, and the
// names in the description of the API at help.clickatell.com.
var statuses = statusTable{"%d", []outcome{
	{1, "UNKNOWN", conversations.DeliveryUnknown, ""},       // not found: changes nothing
	{2, "QUEUED", conversations.DeliveryAccepted, ""},       // waits for its turn
	{3, "SCHEDULED", conversations.DeliveryAccepted, ""},    // for later
	{4, "SENT_TO_SUPPLIER", conversations.DeliverySent, ""}, // the carrier, or Meta
	{5, "DEVICE_ACK", conversations.DeliveryDelivered, ""},
	{6, "READ", conversations.DeliveryRead, ""},
	{20, "EXPIRED", conversations.DeliveryFailed, conversations.FailureUnreachable},
	{21, "STOPPED_BY_USER", conversations.DeliveryFailed, conversations.FailureOptedOut},
	{22, "STOPPED_BY_ADMIN", conversations.DeliveryFailed, conversations.FailureAccount},       // not by the customer: another channel is free to try
	{23, "DELIVERY_FAILURE", conversations.DeliveryFailed, conversations.FailureProviderError}, // no cause is given
	{24, "EMULATED", conversations.DeliveryDelivered, ""},                                      // by a sandbox
	{25, "INSUFFICIENT_ACCOUNT_BALANCE", conversations.DeliveryFailed, conversations.FailureAccount},
	{26, "VOLUME_LIMIT", conversations.DeliveryFailed, conversations.FailureAccount},
	{27, "VOLUME_LIMIT_DAILY", conversations.DeliveryFailed, conversations.FailureAccount},
	{28, "VOLUME_LIMIT_MONTHLY", conversations.DeliveryFailed, conversations.FailureAccount},
	{29, "RECIPIENT_DOES_NOT_EXIST", conversations.DeliveryFailed, conversations.FailureNotOnChannel},
	{0, "STOP_MARKETING_MESSAGES", conversations.DeliveryFailed, conversations.FailurePolicyLimit},         // by the customer, in WhatsApp
	{0, "EXCESSIVE_MESSAGES_TO_RECIPIENT", conversations.DeliveryFailed, conversations.FailurePolicyLimit}, // WhatsApp's limit for one customer
	{60, "ENCRYPTION_ACCESS_DENIED", conversations.DeliveryFailed, conversations.FailureUnknown},
	{61, "ENCRYPTION_CONTENT_ERROR", conversations.DeliveryFailed, conversations.FailureUnknown},
	{0, "ENCRYPTION_VALIDATION_ERROR", conversations.DeliveryFailed, conversations.FailureUnknown},
	{0, "ANONYMOUS_USER_ID_INVALID", conversations.DeliveryFailed, conversations.FailureInvalidNumber},
	{0, "ANONYMOUS_USER_ID_ERROR", conversations.DeliveryFailed, conversations.FailureUnknown},
	{80, "MEDIA_NOT_FOUND", conversations.DeliveryFailed, conversations.FailureContentFiltered},
	{81, "MEDIA_SIZE_ERROR", conversations.DeliveryFailed, conversations.FailureContentFiltered},
	{82, "MEDIA_CHECKSUM_FAILURE", conversations.DeliveryFailed, conversations.FailureContentFiltered},
	{83, "MEDIA_REJECTED_BY_SUPPLIER", conversations.DeliveryFailed, conversations.FailureContentFiltered},
	{84, "MEDIA_METADATA_ERROR", conversations.DeliveryFailed, conversations.FailureContentFiltered},
	{85, "MEDIA_ACCESS_ERROR", conversations.DeliveryFailed, conversations.FailureContentFiltered},
	{0, "MEDIA_TYPE_NOT_SUPPORTED", conversations.DeliveryFailed, conversations.FailureContentFiltered},
	{100, "ROUTING_ERROR", conversations.DeliveryFailed, conversations.FailureUnreachable}, // no way to this network
	{130, "ACCOUNT_PAYMENT_ISSUE", conversations.DeliveryFailed, conversations.FailureAccount},
	{131, "RE_ENGAGEMENT_REQUIRED", conversations.DeliveryFailed, conversations.FailureOutsideWindow},
	{132, "SPAM_RATE_LIMIT_REACHED", conversations.DeliveryFailed, conversations.FailureRate},
	{133, "SERVER_RATE_LIMIT", conversations.DeliveryFailed, conversations.FailureRate},
	{134, "HSM_NOT_AVAILABLE", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "HSM_PARAM_COUNT_MISMATCH", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "HSM_IS_MISSING", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "HSM_DOWNLOAD_FAILED", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "HSM_PACK_IS_MISSING", conversations.DeliveryFailed, conversations.FailureTemplate},
	{139, "EXPERIMENTAL_NUMBER", conversations.DeliveryFailed, conversations.FailurePolicyLimit}, // the customer is in an experiment
	{140, "TEMPLATE_TEXT_TOO_LONG", conversations.DeliveryFailed, conversations.FailureTemplate},
	{141, "TEMPLATE_FORMAT_MISMATCH", conversations.DeliveryFailed, conversations.FailureTemplate},
	{142, "TEMPLATE_FORMATTING_POLICY_VIOLATED", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "TEMPLATE_MEDIA_FORMAT_UNSUPPORTED", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "PARAMETER_MISSING", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "PARAMETER_INVALID", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "PARAMETER_NOT_REQUIRED", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "TEMPLATE_INVALID_URL", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "TEMPLATE_INVALID_PHONE_NUMBER", conversations.DeliveryFailed, conversations.FailureTemplate},
	{0, "TEMPLATE_RECEIVER_NO_BUTTON_SUPPORT", conversations.DeliveryFailed, conversations.FailureTemplate}, // of an old client
}}

// legacyStatuses are those of the REST API, whose 4, 5 and 6 mean other things
// than the One API's.
var legacyStatuses = statusTable{"%03d", []outcome{
	{1, "", conversations.DeliveryFailed, conversations.FailureUnknown}, // the id is not known
	{2, "", conversations.DeliveryAccepted, ""},                         // queued
	{3, "DELIVERED_TO_GATEWAY", conversations.DeliverySent, ""},         // the carrier's, not the phone
	{4, "RECEIVED_BY_RECIPIENT", conversations.DeliveryDelivered, ""},
	{5, "", conversations.DeliveryFailed, conversations.FailureContentFiltered}, // error with the message
	{6, "", conversations.DeliveryFailed, conversations.FailureOptedOut},        // terminated by the user
	{7, "", conversations.DeliveryFailed, conversations.FailureProviderError},   // error delivering
	{8, "", conversations.DeliveryAccepted, ""},                                 // received by Clickatell
	{9, "", conversations.DeliveryFailed, conversations.FailureUnreachable},     // routing error
	{10, "", conversations.DeliveryFailed, conversations.FailureUnreachable},    // expired
	{11, "", conversations.DeliveryAccepted, ""},                                // queued for later
	{12, "", conversations.DeliveryFailed, conversations.FailureAccount},        // out of credit
	{13, "", conversations.DeliveryFailed, conversations.FailureUnknown},        // cancelled
	{14, "", conversations.DeliveryFailed, conversations.FailureRate},           // most messages exceeded
}}
