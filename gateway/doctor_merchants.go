package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"paythread/checkout/platforms"
	"paythread/conversations"
)

// platformMaker makes the adapter of a merchant's platform.
type platformMaker func(*MerchantConfig) (platforms.Platform, error)

// callingPlatform returns what makes adapters that call through client.
func callingPlatform(client *http.Client) platformMaker {
	return func(m *MerchantConfig) (platforms.Platform, error) {
		return newPlatform(m, nil, client, slog.New(slog.DiscardHandler))
	}
}

// endpointStates tells how a merchant's callback endpoints stand, and changes
// nothing.
type endpointStates interface {
	CallbackEndpoints(ctx context.Context, merchantID string) ([]conversations.CallbackEndpoint, error)
}

// CallbackEndpoints asks the servers without opening a store.
func (s inspectedServers) CallbackEndpoints(ctx context.Context, merchantID string) ([]conversations.CallbackEndpoint, error) {
	return conversations.InspectCallbacks(ctx, conversations.Options(s), merchantID)
}

// merchantExams lists the merchants with what is looked at. platform may be nil:
// then no platform is asked. states may be nil: then the endpoints are not
// looked at.
func merchantExams(cfg *Config, platform platformMaker, states endpointStates) []exam {
	var exams []exam
	for _, m := range cfg.Merchants {
		exams = append(exams, exam{
			fmt.Sprintf("merchant %s (%s)", m.ID, m.Platform.Name), platformSecrets(m),
			[]func(context.Context) []namedFinding{
				func(ctx context.Context) []namedFinding { return askPlatform(ctx, m, platform) },
				func(ctx context.Context) []namedFinding {
					return hearsay(lookAtCallbacks(ctx, m, states), platform == nil)
				},
			},
		})
	}
	return exams
}

func platformSecrets(m *MerchantConfig) []string {
	r, _ := platformNamed(m.Platform.Name)
	var secrets []string
	for _, x := range r.Settings {
		if v := m.Platform.Settings[x.Name]; x.Secret && len(v) >= shortestSecret {
			secrets = append(secrets, v)
		}
	}
	return longestFirst(secrets)
}

// askPlatform lets the adapter look at the platform's side.
func askPlatform(ctx context.Context, m *MerchantConfig, platform platformMaker) []namedFinding {
	const name = "platform"
	if platform == nil {
		return []namedFinding{{name, finding{statusOK, "not asked", ""}}}
	}
	r, _ := platformNamed(m.Platform.Name)
	for _, x := range r.Settings {
		if x.Secret && strings.HasPrefix(m.Platform.Settings[x.Name], placeholder) {
			return []namedFinding{{name, finding{statusWarn, "not asked: still as in the printed example: " + x.Name, "put in what the platform gave you"}}}
		}
	}
	p, err := platform(m)
	if err != nil {
		return []namedFinding{{name, finding{statusFail, oneLine(err), "change the merchant's platform settings as said"}}}
	}
	checker, ok := p.(platforms.Checker)
	if !ok {
		return []namedFinding{{name, finding{statusWarn, "not asked: there is no check for " + m.Platform.Name, "make a payment in the sandbox"}}}
	}
	ctx, cancel := context.WithTimeout(ctx, examWithin)
	defer cancel()
	statuses := map[platforms.FindingState]checkStatus{
		platforms.FindingOK: statusOK, platforms.FindingWarning: statusWarn, platforms.FindingWrong: statusFail,
	}
	var found []namedFinding
	for _, f := range checker.Check(ctx) {
		found = append(found, namedFinding{f.Check, finding{statuses[f.State], f.Detail, f.Mend}})
	}
	return found
}

// lookAtCallbacks tells of the merchant's endpoints, those that have trouble by
// themselves.
func lookAtCallbacks(ctx context.Context, m *MerchantConfig, states endpointStates) []namedFinding {
	const name = "callbacks"
	if states == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	endpoints, err := states.CallbackEndpoints(ctx, m.ID)
	if err != nil {
		return []namedFinding{{name, finding{statusWarn, "not known, because Redis does not answer", ""}}}
	}
	var found []namedFinding
	for _, e := range endpoints {
		if f := judgedEndpoint(e, m); f.status != statusOK {
			found = append(found, namedFinding{"callback " + e.ID, f})
		}
	}
	if len(found) == 0 {
		return []namedFinding{{name, finding{statusOK, countOf(len(endpoints), "endpoint") + ", none in trouble", ""}}}
	}
	return found
}

// hearsay makes warnings of failures where nobody outside is asked: what others
// have told us of a merchant's endpoint or a sender is theirs to mend, and must
// not hold up a start, least of all one that mends it.
func hearsay(found []namedFinding, local bool) []namedFinding {
	for i := range found {
		if local && found[i].finding.status == statusFail {
			found[i].finding.status = statusWarn
		}
	}
	return found
}

func judgedEndpoint(e conversations.CallbackEndpoint, m *MerchantConfig) finding {
	retry := "afterwards \"paythread callbacks replay\" sends again what was missed"
	ours := e.Source != conversations.CallbackFromConfig ||
		slices.ContainsFunc(m.Callbacks, func(c *CallbackConfig) bool { return c.ID == e.ID && c.URL == e.URL })
	switch {
	case e.State == conversations.CallbackDisabled && e.Reason == conversations.CallbackByMerchant:
		return finding{statusWarn, "switched off by the merchant since " + moment(e.Since), "switch it on again, if that was not meant"}
	case e.State == conversations.CallbackDisabled:
		return finding{statusFail, fmt.Sprintf("switched off since %s (%s): events wait for it until they are forgotten", moment(e.Since), e.Reason),
			"mend the merchant's system, then \"paythread callbacks enable\"; " + retry}
	case !ours:
		return finding{statusWarn, "the configuration names another address than the gateways use", "it is taken over when the gateways read their configuration again"}
	case e.Failing != nil:
		return finding{statusWarn, "every try has failed since " + moment(*e.Failing), "see what the merchant's system answers with \"paythread callbacks deliveries\""}
	}
	return finding{statusOK, "", ""}
}
