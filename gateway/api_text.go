package main

import (
	"fmt"
	"strings"

	"paythread/conversations"
)

// eventTexts are the sentences that agents read about each type of event. Some
// depend on the reason, which is looked up first as type.reason.
var eventTexts = map[string]string{
	"created":                             "The payment request was made; the message is on its way.",
	"sent":                                "The message was sent to the customer.",
	"delivered":                           "The message is on the customer's phone.",
	"read":                                "The customer has read the message.",
	"opened":                              "The customer has opened the payment page.",
	"checkout_started":                    "The customer has begun to pay.",
	"attempt_started":                     "The customer has submitted a card; the payment is being processed.",
	"authenticating":                      "The customer is confirming the payment with the bank.",
	"declined":                            "The payment was declined. The customer can try again or use another card.",
	"attempt_unsettled":                   "The platform's answer did not come; we are asking what became of the payment. Nothing is charged again meanwhile.",
	"attempt_not_taken":                   "The payment could not be made and nothing was charged. The customer can try again.",
	"attempt_not_found":                   "The platform knows of no such payment: nothing was charged. The customer can try again.",
	"paid":                                "The customer has paid.",
	"authorized":                          "The amount is held on the customer's card.",
	"in_review":                           "The platform's reviewers hold the payment: it does not count before they accept it.",
	"late_payment":                        "Money has arrived after the end of this payment request.",
	"captured":                            "The held amount was taken.",
	"refunded":                            "Money was refunded to the customer.",
	"failed":                              "The payment request has failed: the most attempts were made.",
	"expired":                             "The time for this payment request has run out.",
	"expired.not_opened":                  "The link was not opened in time.",
	"expired.not_paid":                    "The link was opened, but the payment was not made in time.",
	"cancelled":                           "The payment request was cancelled; the customer is told.",
	"cancelled.by_agent":                  "You cancelled the payment request; the customer is told.",
	"cancelled.already_paid":              "The order was paid through another payment request, so this one was cancelled.",
	"extended":                            "The customer has more time now.",
	"resent":                              "The message is sent again.",
	"superseded":                          "Another payment request has taken this order.",
	"reversal_started":                    "Money that must not be kept is being given back.",
	"reversal_started.second_success":     "The customer paid a second time; that payment is being given back.",
	"reversal_started.late_payment":       "Money came late and is being given back.",
	"reversal_started.partial":            "Only a part of the amount was held; it is being given back.",
	"reversal_started.risk_declined":      "The payment was refused by the risk rules; what was held is being given back.",
	"reversal_started.review_rejected":    "The review rejected the payment; what was held is being given back.",
	"reversal_started.order_already_paid": "The order is paid already; this payment is being given back.",
	"reversal_started.review_timed_out":   "The reviewers did not decide in time; what was held is being given back.",
	"reversed":                            "Money was given back to the customer.",
	"reversal_failed":                     "Money could not be given back. Ask your administrator to look at it.",
	"card_testing":                        "Several cards of this customer were declined; no further one is taken for a while. Offer another way to pay.",
	"operation_asked":                     "A capture, reversal or refund is on its way.",
	"operation_unknown":                   "It is not known yet whether a capture, reversal or refund was done; the platform is being asked.",
	"operation_failed":                    "A capture, reversal or refund has failed.",
	"receipt_sent":                        "The receipt was sent to the customer.",
	"receipt_delivered":                   "The receipt is on the customer's phone.",
	"receipt_read":                        "The customer has read the receipt message.",
	"receipt_viewed":                      "The customer has looked at the receipt.",
	"fell_back":                           "WhatsApp did not reach the customer; the message goes by SMS, with the same link.",
	"resending":                           "The message did not arrive and is sent again.",
	"message_failed":                      "The message could not be delivered.",
	"message_updated":                     "There is news of a message.",
}

// messageNames are how agents call messages.
var messageNames = map[conversations.Purpose]string{
	conversations.PurposePayment:   "payment message",
	conversations.PurposeReceipt:   "receipt message",
	conversations.PurposeCancelled: "message about the cancellation",
	conversations.PurposeRefund:    "message about the money given back",
	conversations.PurposeDeclined:  "message about the decline",
	conversations.PurposeReply:     "answer",
	conversations.PurposeAgent:     "agent's message",
	conversations.PurposeConsent:   "confirmation",
}

// eventText returns the sentence that an agent reads about an event.
func eventText(e conversations.LoggedEvent) string {
	if m := e.Message; m != nil && strings.HasPrefix(e.Type, "message_") {
		return messageText(*m)
	}
	if text := operationEventText(e); text != "" {
		return text
	}
	if text, ok := eventTexts[e.Type+"."+e.Reason]; ok {
		return text
	}
	switch e.Type {
	case "declined":
		if text := declineText(e.Reason); text != "" {
			return text
		}
	case "attempt_not_taken":
		if text := notTakenText(e.Reason); text != "" {
			return text
		}
	}
	return eventTexts[e.Type]
}

func messageText(m conversations.LoggedMessage) string {
	name := messageNames[m.Purpose]
	if name == "" {
		name = "message"
	}
	if m.Reason == conversations.FailureNotNeeded {
		return fmt.Sprintf("The %s was called off: it is no longer needed.", name)
	}
	if m.Status == conversations.DeliveryFailed {
		return strings.TrimSpace(fmt.Sprintf("The %s could not be delivered. %s", name, conversations.FailureReasons[m.Reason]))
	}
	return fmt.Sprintf("The %s is now %s.", name, m.Status)
}
