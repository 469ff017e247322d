package unifiedcheckout

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"paythread/checkout/platforms"
	"paythread/checkout/platforms/cybersource"
)

// The offsets of our clock from CyberSource's that are worth a word. A signature
// with jwt is good for two minutes from our time on.
const (
	clockWarn = 5 * time.Second
	clockFail = time.Minute
)

// Check implements platforms.Checker: it makes one signed search, which may find
// nothing, and looks at the answer and at its time.
func (p *Platform) Check(ctx context.Context) []platforms.Finding {
	now := p.now()
	answer, err := p.client.Do(ctx, cybersource.Call{Method: http.MethodPost, Path: "/tss/v2/searches", Body: searchRequest{
		Save: "false", Timezone: "GMT", Limit: 1, Sort: "submitTimeUtc:desc",
		Query: fmt.Sprintf("submitTimeUtc:[%d TO %d}", now.Add(-time.Hour).UnixMilli(), now.UnixMilli()),
	}})
	if err != nil {
		detail := "does not answer"
		var none *cybersource.NoAnswerError
		if errors.As(err, &none) {
			detail = "no answer: " + none.Reason
		}
		return []platforms.Finding{
			{Check: "credentials", State: platforms.FindingWrong, Detail: detail, Mend: "see that CyberSource, at base_url, can be reached from here: names, proxies, firewalls, port 443"},
			p.checkNotifications(),
		}
	}
	clock := checkClock(answer.At, now, p.now())
	return []platforms.Finding{p.checkCredentials(answer, clock), clock, p.checkNotifications()}
}

func (p *Platform) checkCredentials(answer cybersource.Answer, clock platforms.Finding) platforms.Finding {
	f := platforms.Finding{Check: "credentials", State: platforms.FindingWrong, Detail: fmt.Sprintf("CyberSource answered %d", answer.Status)}
	if answer.CorrelationID != "" {
		f.Detail += " (correlation id " + answer.CorrelationID + ")"
	}
	switch {
	case answer.Status == http.StatusOK || answer.Status == http.StatusCreated:
		f.State, f.Detail = platforms.FindingOK, "a signed search is answered, as merchant "+p.merchantID
	case answer.Status == http.StatusUnauthorized && clock.State == platforms.FindingWrong:
		f.Detail += ": the signature is refused, as it is with a clock that is so wrong"
		f.Mend = "set the clock first, see below"
	case answer.Status == http.StatusUnauthorized:
		f.Detail += ": the signature is refused"
		f.Mend = "compare merchant_id, key_id and shared_secret with Payment Configuration > Key Management in the Business Center of the same environment; keys end after three years"
	case answer.Status == http.StatusForbidden:
		f.Detail += ": the key is known and may not search"
		f.Mend = "let CyberSource enable Transaction Search for merchant_id: without it nobody can find out what became of a charge whose answer was lost"
	case answer.Status == http.StatusNotFound:
		f.Mend = "see that base_url is the address of CyberSource's REST API, without a path"
	case answer.Status == http.StatusTooManyRequests || answer.Status >= http.StatusInternalServerError:
		f.State, f.Mend = platforms.FindingWarning, "try again in a few minutes; if it stays so, give CyberSource's support the correlation id"
	default:
		f.Mend = "give CyberSource's support the correlation id"
	}
	return f
}

// checkClock compares our clock, before and after a call, with what stands in
// its answer. That is told to the second, so that less says nothing.
func checkClock(theirs, before, after time.Time) platforms.Finding {
	f := platforms.Finding{Check: "clock", State: platforms.FindingOK}
	if theirs.IsZero() {
		f.State, f.Detail, f.Mend = platforms.FindingWarning, "CyberSource's answer does not tell its time", "see that this machine sets its clock by NTP"
		return f
	}
	var off time.Duration // ours less theirs
	switch {
	case before.After(theirs.Add(time.Second)):
		off = before.Sub(theirs.Add(time.Second))
		f.Detail = fmt.Sprintf("ours is %s ahead of CyberSource's", off.Round(time.Second))
	case after.Before(theirs):
		off = theirs.Sub(after)
		f.Detail = fmt.Sprintf("ours is %s behind CyberSource's", off.Round(time.Second))
	}
	const mend = "let this machine set its clock by NTP: CyberSource refuses calls that were signed at another time"
	switch {
	case off >= clockFail:
		f.State, f.Mend = platforms.FindingWrong, mend
	case off >= clockWarn:
		f.State, f.Mend = platforms.FindingWarning, mend
	default:
		f.Detail = "as CyberSource's, to a few seconds"
	}
	return f
}

func (p *Platform) checkNotifications() platforms.Finding {
	f := platforms.Finding{Check: "notifications", State: platforms.FindingOK}
	if len(p.webhook.keys) == 0 {
		f.State = platforms.FindingWarning
		f.Detail = "webhook_keys is empty: reviews, and what is done in the Business Center, are learned by asking alone, minutes later"
		f.Mend = "subscribe as docs/operate.md says, and put the key's id and secret into webhook_keys"
		return f
	}
	f.Detail = fmt.Sprintf("%d of webhook_keys are taken", len(p.webhook.keys))
	if len(p.webhook.keys) == 1 {
		f.Detail = strings.Replace(f.Detail, "1 of webhook_keys are", "one of webhook_keys is", 1)
	}
	f.Mend = "whether they arrive is counted in paythread_notifications_total"
	return f
}
