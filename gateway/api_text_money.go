package main

import (
	"fmt"
	"strings"
	"time"

	"paythread/conversations"
)

// attemptTexts are the sentences that agents read about an attempt.
var attemptTexts = map[conversations.AttemptState]string{
	conversations.AttemptSending:        "The payment is being sent to the platform.",
	conversations.AttemptUnsettled:      "The outcome is not known yet; the platform is being asked. Nothing is charged again meanwhile.",
	conversations.AttemptAuthenticating: "The customer is confirming the payment with the bank.",
	conversations.AttemptReversing:      "What was held is being given back.",
	conversations.AttemptInReview:       "The platform's reviewers decide.",
	conversations.AttemptAuthorized:     "The amount is held on the card.",
	conversations.AttemptCaptured:       "The amount was taken.",
	conversations.AttemptDeclined:       "Declined; nothing was charged.",
	conversations.AttemptNotTaken:       "The payment was not made; nothing was charged.",
	conversations.AttemptNotFound:       "The platform knows of no such payment; nothing was charged.",
	conversations.AttemptReversed:       "What was held or taken was given back.",
}

// What agents can say or do about a decline, where several reasons come to the
// same.
const (
	declinedByBank     = "Declined by the bank, which does not say why. Another card may work."
	declinedCVN        = "Declined: the security code is not right. The customer can try again."
	declinedNumber     = "Declined: the card number is not right. The customer can try again."
	declinedAddress    = "Declined: the billing address does not fit the card. The customer can try again with the address that the bank knows."
	declinedRules      = "Declined by the shop's own risk rules. Another card may work; your administrator can look at the rules."
	declinedScreened   = "Declined by the screening against lists of sanctions. Do not try again; ask your administrator."
	declinedLater      = "Declined: the bank does not answer. Trying again later may work."
	declinedCheck      = "Declined: the bank account could not be verified. Another way to pay may work."
	setUpWrong         = "The payment platform refused our request because something is set up wrong; nothing was charged. Ask your administrator."
	platformOverloaded = "The payment platform takes no more requests for the moment; nothing was charged. The customer can try again in a minute."
)

// declineTexts say what an agent can tell a customer, by the platform's word of
// a decline. They never repeat that a card was reported stolen: that is not the
// shop's to say.
var declineTexts = map[string]string{
	"AVS_FAILED":                       declinedAddress,
	"CONTACT_PROCESSOR":                "Declined: the bank has questions. The customer can ask the bank, or use another card.",
	"EXPIRED_CARD":                     "Declined: the card has expired. Another card may work.",
	"PROCESSOR_DECLINED":               declinedByBank,
	"INSUFFICIENT_FUND":                "Declined: there is not enough money on the card. Another card may work.",
	"STOLEN_LOST_CARD":                 "Declined by the bank. Another card may work.",
	"ISSUER_UNAVAILABLE":               declinedLater,
	"UNAUTHORIZED_CARD":                "Declined: this card cannot be used for this payment. Another card may work.",
	"CVN_NOT_MATCH":                    declinedCVN,
	"EXCEEDS_CREDIT_LIMIT":             "Declined: the amount is beyond the card's limit. Another card may work.",
	"INVALID_CVN":                      declinedCVN,
	"BLOCKED_BY_CARDHOLDER":            "Declined: the card's owner has blocked such payments. The customer can ask the bank, or use another card.",
	"DECLINED_CHECK":                   declinedCheck,
	"BLACKLISTED_CUSTOMER":             "Declined: the card is on a list of cards that are refused. Another card may work.",
	"SUSPENDED_ACCOUNT":                "Declined: the customer's account at the bank is frozen. The customer can ask the bank, or use another card.",
	"PAYMENT_REFUSED":                  declinedByBank,
	"CV_FAILED":                        declinedCVN,
	"INVALID_ACCOUNT":                  declinedNumber,
	"GENERAL_DECLINE":                  declinedByBank,
	"INVALID_MERCHANT_CONFIGURATION":   setUpWrong,
	"DECISION_PROFILE_REJECT":          declinedRules,
	"SCORE_EXCEEDS_THRESHOLD":          declinedRules,
	"PENDING_AUTHENTICATION":           "Declined: the payment was not confirmed with the bank. The customer can try again.",
	"ACH_VERIFICATION_FAILED":          declinedCheck,
	"DECISION_PROFILE_REVIEW":          declinedRules,
	"CONSUMER_AUTHENTICATION_REQUIRED": "Declined: the bank wants the customer to confirm the payment. The customer can try again.",
	"CONSUMER_AUTHENTICATION_FAILED":   "Declined: the bank could not confirm that it was the customer. The customer can try again, or use another card.",
	"ALLOWABLE_PIN_RETRIES_EXCEEDED":   "Declined: a wrong PIN was entered too often. Another card may work.",
	"PROCESSOR_ERROR":                  declinedLater,
	"CUSTOMER_WATCHLIST_MATCH":         declinedScreened,
	"ADDRESS_COUNTRY_WATCHLIST_MATCH":  declinedScreened,
	"EMAIL_COUNTRY_WATCHLIST_MATCH":    declinedScreened,
	"IP_COUNTRY_WATCHLIST_MATCH":       declinedScreened,
	"authentication_abandoned":         "The customer did not confirm the payment with the bank; nothing was charged.",
}

// notTakenTexts say why a payment was surely not made, by the platform's word.
// Most of it is no fault of the customer's or the card's.
var notTakenTexts = map[string]string{
	"MISSING_FIELD":                  setUpWrong,
	"INVALID_DATA":                   setUpWrong,
	"INVALID_REQUEST":                setUpWrong,
	"INVALID_AMOUNT":                 setUpWrong,
	"INVALID_MERCHANT_CONFIGURATION": setUpWrong,
	"NOT_SUPPORTED":                  setUpWrong,
	"INVALID_PAYMENT_ID":             setUpWrong,
	"AUTHENTICATION_FAILED":          setUpWrong,
	"HTTP_401":                       setUpWrong,
	"HTTP_403":                       setUpWrong,
	"HTTP_404":                       setUpWrong,
	"HTTP_429":                       platformOverloaded,
	"INVALID_CARD":                   "The card number is not right; nothing was charged. The customer can try again.",
	"CARD_TYPE_NOT_ACCEPTED":         "The shop does not take this kind of card; nothing was charged. Another card may work.",
	"INVALID_CARD_TYPE":              "The kind of card does not fit its number; nothing was charged. The customer can try again.",
	"PROCESSOR_UNAVAILABLE":          "The bank's processor does not answer; nothing was charged. The customer can try again in a minute.",
	"DUPLICATE_REQUEST":              "The platform took the payment for a repeat of another and refused it; nothing was charged.",
	"NOT_SENT":                       "The payment platform could not be reached; nothing was charged. The customer can try again.",
	"not_sent_in_time":               "The payment was not sent in time; nothing was charged. The customer can try again.",
	"timeout_reversed":               "The platform's answer did not come, and the payment was taken back; nothing was charged. The customer can try again.",
}

// attemptText returns the sentence that an agent reads about an attempt.
func attemptText(a conversations.Attempt) string {
	switch a.State {
	case conversations.AttemptDeclined:
		if text := declineText(a.Result.Reason); text != "" {
			return text
		}
	case conversations.AttemptNotTaken:
		if text := notTakenText(a.Result.Reason); text != "" {
			return text
		}
	case conversations.AttemptInReview:
		if a.ReviewBy != nil {
			return fmt.Sprintf("The platform's reviewers decide. If they have not by %s, the money is given back by itself.", textTime(*a.ReviewBy))
		}
	}
	return attemptTexts[a.State]
}

// textTime writes a time for agents, whose zone is not known here.
func textTime(t time.Time) string { return t.UTC().Format("2 January 15:04 UTC") }

// declineText returns the sentence about a decline's reason; empty if there is
// none for it.
func declineText(reason string) string { return declineTexts[reason] }

// notTakenText returns the sentence about a reason for which nothing was taken;
// empty if there is none for it.
func notTakenText(reason string) string {
	if text, ok := notTakenTexts[reason]; ok {
		return text
	}
	return declineTexts[reason]
}

// operationTexts are the sentences about an operation, by its kind and state;
// the %s is the amount.
var operationTexts = map[conversations.OperationKind]map[conversations.OperationState]string{
	conversations.OperationCapture: {
		conversations.OperationPending:   "The capture of %s is on its way.",
		conversations.OperationSucceeded: "%s of the held amount was taken.",
		conversations.OperationFailed:    "The capture of %s has failed.",
		conversations.OperationUnsettled: "It is not known yet whether the capture of %s was done; the platform is being asked. It is not done twice.",
	},
	conversations.OperationReversal: {
		conversations.OperationPending:   "The hold of %s is being released.",
		conversations.OperationSucceeded: "The hold of %s was released.",
		conversations.OperationFailed:    "The hold of %s could not be released.",
		conversations.OperationUnsettled: "It is not known yet whether the hold of %s was released; the platform is being asked.",
	},
	conversations.OperationVoid: {
		conversations.OperationPending:   "The payment of %s is being called off before it is settled.",
		conversations.OperationSucceeded: "The payment of %s was called off before it was settled.",
		conversations.OperationFailed:    "The payment of %s could not be called off.",
		conversations.OperationUnsettled: "It is not known yet whether the payment of %s was called off; the platform is being asked.",
	},
	conversations.OperationRefund: {
		conversations.OperationPending:   "The refund of %s is on its way.",
		conversations.OperationSucceeded: "%s was refunded to the customer.",
		conversations.OperationFailed:    "The refund of %s has failed.",
		conversations.OperationUnsettled: "It is not known yet whether the refund of %s was made; the platform is being asked. It is not made twice.",
	},
}

// operationReasons say why an operation is done that the merchant did not ask
// for.
var operationReasons = map[string]string{
	conversations.OperationAsked:         "",
	conversations.OperationElsewhere:     "It was done at the payment platform, not here.",
	conversations.OperationSecondSuccess: "The customer had paid twice.",
	conversations.OperationLatePayment:   "The money had come too late.",
	conversations.OperationPartial:       "Only a part of the amount was approved.",
	conversations.OperationRiskDeclined:  "The risk rules had refused the payment.",
	conversations.OperationRejected:      "The reviewers had rejected the payment.",
	conversations.OperationReviewOver:    "The reviewers had not decided in time.",
	conversations.OperationOrderPaid:     "The order was paid already.",
}

// operationErrors say why an operation did not succeed, or not yet, by the
// platform's word, and what can be done.
var operationErrors = map[string]string{
	conversations.ErrorSettled:                "The money is settled already: refund it instead.",
	conversations.ErrorUnderReview:            "The platform's reviewers have to decide first; it is tried again by itself.",
	"NOT_VOIDABLE":                            "The money is settled already: refund it instead.",
	"TRANSACTION_ALREADY_SETTLED":             "The money is settled already: refund it instead.",
	"EXCEEDS_AUTH_AMOUNT":                     "The amount is more than what is held.",
	"AUTH_ALREADY_REVERSED":                   "The hold was released already.",
	"MISSING_AUTH":                            "The platform does not find what is held: the hold may have run out.",
	"TRANSACTION_ALREADY_REVERSED_OR_SETTLED": "The platform says that it was given back or settled already. Ask your administrator to look it up there.",
	"CAPTURE_ALREADY_VOIDED":                  "The payment was called off already; there is nothing to refund.",
	"ACCOUNT_NOT_ALLOWED_CREDIT":              "The shop's account at the platform may not refund. Ask your administrator.",
	"INVALID_PAYMENT_ID":                      "The platform does not know the payment. Ask your administrator.",
	"NO_PAYMENT_ID":                           "The platform's number of the payment is not known. Ask your administrator.",
	"MISSING_FIELD":                           "Something is set up wrong. Ask your administrator.",
	"INVALID_DATA":                            "Something is set up wrong. Ask your administrator.",
	"INVALID_REQUEST":                         "Something is set up wrong. Ask your administrator.",
	"INVALID_AMOUNT":                          "The platform does not take this amount.",
	"INVALID_MERCHANT_CONFIGURATION":          "Something is set up wrong. Ask your administrator.",
	"NOT_SUPPORTED":                           "The shop's account at the platform cannot do this. Ask your administrator.",
	"DUPLICATE_REQUEST":                       "The platform took it for a repeat; it is being asked for.",
	"PROCESSOR_UNAVAILABLE":                   "The bank's processor does not answer; it is tried again by itself.",
	"HTTP_401":                                "Something is set up wrong. Ask your administrator.",
	"HTTP_403":                                "Something is set up wrong. Ask your administrator.",
	"DECLINED":                                "The bank refused it.",
	"PROCESSOR_DECLINED":                      "The bank refused it.",
	"GENERAL_DECLINE":                         "The bank refused it.",
}

// operationText returns the sentences that an agent reads about an operation.
func operationText(kind conversations.OperationKind, state conversations.OperationState, amount conversations.Money, reason, word string) string {
	text := fmt.Sprintf(operationTexts[kind][state], amount)
	if why := operationReasons[reason]; why != "" {
		text += " " + why
	}
	switch {
	case state == conversations.OperationSucceeded || word == "":
		return text
	case word == conversations.ErrorSettled && reason != conversations.OperationAsked:
		return text + " The money is settled already, so it is refunded instead."
	}
	if why, ok := operationErrors[word]; ok {
		return text + " " + why
	}
	if state == conversations.OperationFailed {
		return text + " Ask your administrator to look it up at the platform."
	}
	return text
}

// operationEventText returns what an agent reads about an event of an
// operation; empty if the event says it better than the operation.
func operationEventText(e conversations.LoggedEvent) string {
	o := e.Operation
	if o == nil {
		return ""
	}
	switch {
	case e.Type == "captured", e.Type == "reversed", e.Type == "refunded", strings.HasPrefix(e.Type, "operation_"):
		return operationText(o.Kind, o.State, o.Amount, o.Reason, o.Error)
	}
	return ""
}
