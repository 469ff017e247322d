package cybersource

import (
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
)

// card is what the card form or the payments API gives.
type card struct {
	Number          string `json:"number"`
	ExpirationMonth string `json:"expirationMonth"`
	ExpirationYear  string `json:"expirationYear"`
	SecurityCode    string `json:"securityCode"`
	Type            string `json:"type,omitempty"`
}

// brand is a card network: its name in allowedCardNetworks, its numeric type, and what its numbers look like.
type brand struct {
	Name    string
	Label   string
	Code    string
	CVN     int
	lengths []int
	ranges  [][2]int // of the first six digits
}

// brands are tried in order, so narrower ranges stand first.
var brands = []brand{
	{"AMEX", "Amex", "003", 4, []int{15}, [][2]int{{340000, 349999}, {370000, 379999}}},
	{"DINERSCLUB", "Diners Club", "005", 3, []int{14, 16, 19}, [][2]int{{300000, 305999}, {360000, 369999}, {380000, 399999}}},
	{"JCB", "JCB", "007", 3, []int{16, 19}, [][2]int{{333700, 334999}, {352800, 358999}}},
	{"DISCOVER", "Discover", "004", 3, []int{16, 19}, [][2]int{{601100, 601199}, {644000, 659999}}},
	{"CUP", "UnionPay", "062", 3, []int{16, 17, 18, 19}, [][2]int{{620000, 629999}}},
	{"MASTERCARD", "Mastercard", "002", 3, []int{16}, [][2]int{{222100, 272099}, {510000, 559999}}},
	{"MAESTRO", "Maestro", "042", 3, []int{12, 13, 14, 15, 16, 17, 18, 19}, [][2]int{{500000, 509999}, {560000, 589999}, {670000, 679999}}},
	{"VISA", "Visa", "001", 3, []int{13, 16, 19}, [][2]int{{400000, 499999}}},
}

func brandOf(number string) (brand, bool) {
	if len(number) < 12 {
		return brand{}, false
	}
	prefix, err := strconv.Atoi(number[:6])
	if err != nil {
		return brand{}, false
	}
	for _, b := range brands {
		for _, r := range b.ranges {
			if prefix >= r[0] && prefix <= r[1] && slices.Contains(b.lengths, len(number)) {
				return b, true
			}
		}
	}
	return brand{}, false
}

// luhn says whether the last digit of a card number checks the others.
func luhn(number string) bool {
	sum := 0
	for i := range len(number) {
		d := int(number[len(number)-1-i]) - '0'
		if d < 0 || d > 9 {
			return false
		}
		if i%2 == 1 {
			if d *= 2; d > 9 {
				d -= 9
			}
		}
		sum += d
	}
	return sum%10 == 0 && len(number) > 0
}

// tidy removes what people type between digits and writes the year with four digits.
func (c card) tidy() card {
	c.Number = strings.NewReplacer(" ", "", "-", "").Replace(c.Number)
	if len(c.ExpirationMonth) == 1 {
		c.ExpirationMonth = "0" + c.ExpirationMonth
	}
	if len(c.ExpirationYear) == 2 {
		c.ExpirationYear = "20" + c.ExpirationYear
	}
	return c
}

// check names the first field of a tidy card that cannot be right.
func (c card) check() (field string, err error) {
	if len(c.Number) > 19 || !luhn(c.Number) {
		return "number", errors.New("is not a card number")
	}
	if _, ok := brandOf(c.Number); !ok {
		return "number", errors.New("is of no known card network")
	}
	if m, err := strconv.Atoi(c.ExpirationMonth); err != nil || m < 1 || m > 12 || len(c.ExpirationMonth) != 2 {
		return "expirationMonth", errors.New("is not a month")
	}
	if y, err := strconv.Atoi(c.ExpirationYear); err != nil || len(c.ExpirationYear) != 4 || y < 2000 || y > 2099 {
		return "expirationYear", errors.New("is not a year of a card")
	}
	if c.SecurityCode != "" {
		b, _ := brandOf(c.Number)
		if _, err := strconv.Atoi(c.SecurityCode); err != nil || len(c.SecurityCode) != b.CVN {
			return "securityCode", errors.New("has the wrong length")
		}
	}
	return "", nil
}

// expired says whether a checked card's last month is over.
func (c card) expired(now time.Time) bool {
	month, _ := strconv.Atoi(c.ExpirationMonth) // check has read both
	year, _ := strconv.Atoi(c.ExpirationYear)
	return !now.Before(time.Date(year, time.Month(month)+1, 1, 0, 0, 0, 0, time.UTC))
}

func (c card) prefix() string { return c.Number[:6] }
func (c card) suffix() string { return c.Number[len(c.Number)-4:] }
func (c card) masked() string { return strings.Repeat("X", len(c.Number)-4) + c.suffix() }

// TestCard is a number with an outcome of its own. Any expiry in the future and any security code will do.
type TestCard struct {
	Number  string `json:"number"`
	Network string `json:"network"`
	Label   string `json:"label"`
	Outcome string `json:"outcome"`

	does outcome
}

// comesTo is the card's outcome.
func (c TestCard) comesTo() outcome {
	if c.does.status == "" {
		return approved
	}
	return c.does
}

// testCards are the numbers that other sandboxes have made well known, each with the nearest outcome.
var testCards = []TestCard{
	{Number: "4111111111111111", Label: "Approved", Outcome: "201 AUTHORIZED"},
	{Number: "5555555555554444", Label: "Approved, Mastercard", Outcome: "201 AUTHORIZED"},
	{Number: "378282246310005", Label: "Approved, American Express", Outcome: "201 AUTHORIZED"},
	{Number: "4000000000009995", Label: "Insufficient funds", does: declined("INSUFFICIENT_FUND")},
	{Number: "4000000000000002", Label: "Declined", does: declined("PROCESSOR_DECLINED")},
	{Number: "4000000000009979", Label: "Stolen card", does: declined("STOLEN_LOST_CARD")},
	{Number: "4000000000000069", Label: "Expired card", does: declined("EXPIRED_CARD")},
	{Number: "4000000000000127", Label: "Wrong security code", does: declined("INVALID_CVN")},
	{Number: "4000000000006975", Label: "Over the card's limit", does: declined("EXCEEDS_CREDIT_LIMIT")},
	{Number: "4000000000009235", Label: "Held for review", does: outcome{status: statusReview, reason: "DECISION_PROFILE_REVIEW"}},
	{Number: "4100000000000019", Label: "Refused by risk rules", does: outcome{status: statusRiskDeclined, reason: "DECISION_PROFILE_REJECT"}},
	{Number: "4000000000000341", Label: "Issuing bank unavailable", does: declined("ISSUER_UNAVAILABLE")},
	{Number: "4000000000009987", Label: "Inactive, or not for use online", does: declined("UNAUTHORIZED_CARD")},
	{Number: "4000000000000101", Label: "Security code does not match", does: declined("CVN_NOT_MATCH")},
	{Number: "4000000000000226", Label: "Stopped by the cardholder", does: declined("BLOCKED_BY_CARDHOLDER")},
	{Number: "4000000000000259", Label: "Account frozen", does: declined("SUSPENDED_ACCOUNT")},
	{Number: "4000000000000036", Label: "Address check failed, held for review", does: outcome{status: statusReview, reason: "AVS_FAILED", avs: "N"}},
	{Number: "4000000000000085", Label: "Security code check failed, held for review", does: outcome{status: statusReview, reason: "CV_FAILED", cvn: "N"}},
	{Number: "4000000000000218", Label: "Review before authorization", does: outcome{status: statusPendingReview, reason: "DECISION_PROFILE_REVIEW"}},
	{Number: "4000000000004954", Label: "Refused for its score", does: outcome{status: statusRiskDeclined, reason: "SCORE_EXCEEDS_THRESHOLD"}},
	{Number: "4012888888881881", Label: "Approved for half", does: outcome{status: statusPartial}},
	{Number: "4000002500003155", Label: "Always asks for 3-D Secure", does: outcome{status: statusPendingAuthentication, reason: "CONSUMER_AUTHENTICATION_REQUIRED"}},
	{Number: "4000000000000119", Label: "System error, nothing taken", does: outcome{status: statusServerError, reason: "SYSTEM_ERROR"}},
	{Number: "5105105105105100", Label: "System error, yet charged", does: outcome{status: statusServerError, reason: "SYSTEM_ERROR", charged: true}},
}

// The payer authentication guide's numbers that do not simply succeed. They count only when the
// request asks for authentication.
var (
	challengeSucceeds = strings.Fields("4000000000002503 5200000000002151 340000000002534 4000000000001091 5200000000001096 340000000001098 6011000000002265 3338000000000569 4000000000002420 5200000000002664 340000000002484")
	challengeFails    = strings.Fields("4000000000002370 5200000000002490 340000000002237 4000000000001109 5200000000001104 340000000001106 6011000000002695 3338000000000874 4000000000002644 5200000000002656 340000000002351")
	frictionlessFails = strings.Fields("4000000000002925 5200000000002276 340000000002096 4000000000002537 5200000000002185 340000000002062 5200000000001013 340000000001015 6011000000002711")
)

// TestCards lists the numbers whose outcome is fixed, approved ones first.
func TestCards() []TestCard {
	list := slices.Clone(testCards)
	for i := range list {
		c := &list[i]
		if b, ok := brandOf(c.Number); ok {
			c.Network = b.Name
		}
		if c.Outcome == "" {
			c.Outcome = c.does.describe()
		}
	}
	return list
}

// cardOutcome is the fixed outcome of a number, if it has one. All others are decided by the amount.
func cardOutcome(number string) (outcome, bool) {
	for _, c := range testCards {
		if c.Number == number {
			return c.does, c.does.status != ""
		}
	}
	return outcome{}, false
}
