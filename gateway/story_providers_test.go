package main

import (
	"cmp"
	"fmt"
	"regexp"
	"testing"

	"paythread/conversations"
	"paythread/simulator"
	"paythread/simulator/clickatell"
	"paythread/simulator/twilio"
)

// providersOfTheStage are whom a story's merchant sends through, other than
// the demo's Meta for WhatsApp and Twilio for SMS.
type providersOfTheStage struct{ WhatsApp, SMS string }

// What the world knows of the merchant at the providers that the demo has not.
const (
	stageTwilioWhatsApp = "+27600000003"
	stageClickatellKey  = "clickatell-api-key-of-stories=="
	stageWebhookSecret  = "a-secret-of-stories-in-the-path-0123456789"
)

var stageContents = map[conversations.Purpose]string{
	conversations.PurposePayment: "HX00000000000000000000000000000001", conversations.PurposeReceipt: "HX00000000000000000000000000000002",
	conversations.PurposeCancelled: "HX00000000000000000000000000000003", conversations.PurposeRefund: "HX00000000000000000000000000000004",
}

// senders are the demo's senders with the providers of the stage, as YAML.
func (p providersOfTheStage) senders(s *stage) string {
	number := map[conversations.Channel]string{conversations.WhatsApp: stageTwilioWhatsApp, conversations.SMS: demoTwilioPhone}
	block := func(id string, channel conversations.Channel, provider string) string {
		head := fmt.Sprintf("      - id: %s\n        provider: %s\n        channel: %s\n", id, provider, channel)
		switch provider {
		case "twilio":
			head += fmt.Sprintf("        base_url: %s/twilio\n        account_sid: %s\n        auth_token: %s\n        from: %q\n",
				s.outside.URL, demoTwilio.SID, demoTwilio.AuthToken, number[channel])
			if channel == conversations.WhatsApp {
				for _, purpose := range conversations.NoticePurposes {
					head += fmt.Sprintf("        content_%s: %s\n", purpose, stageContents[purpose])
				}
			}
		case "clickatell":
			head += fmt.Sprintf("        base_url: %s/clickatell\n        api_key: %s\n        webhook_secret: %s\n", s.outside.URL, stageClickatellKey+string(channel), stageWebhookSecret)
			if channel == conversations.WhatsApp {
				for _, purpose := range conversations.NoticePurposes {
					head += fmt.Sprintf("        template_%s: %s\n", purpose, "request_"+string(purpose))
				}
			}
		}
		return head
	}
	return "    senders:\n" + block("acme-wa", conversations.WhatsApp, p.WhatsApp) + block("acme-sms", conversations.SMS, p.SMS) + "    platform:"
}

// sendersBlock is the demo's list of senders.
var sendersBlock = regexp.MustCompile(`(?s)    senders:\n.*?    platform:`)

// settle puts the merchant into the world of the providers.
func (p providersOfTheStage) settle(c *simulator.Config, public string) {
	body := func(purpose conversations.Purpose) (text, label, link string) {
		v := conversations.Parameters{Merchant: "{{1}}", Amount: "{{2}}", Order: "{{3}}"}
		switch purpose {
		case conversations.PurposeCancelled:
			v.Order = "{{2}}"
		case conversations.PurposeReceipt, conversations.PurposeRefund:
			label, link = "View receipt", public+"/r/{{4}}"
		default:
			label, link = "Pay securely", public+"/p/{{4}}"
		}
		return conversations.Merchant{}.Text(conversations.WhatsApp, purpose, v), label, link
	}
	if p.WhatsApp == "twilio" {
		account := &c.Twilio.Accounts[0]
		account.Numbers = append(account.Numbers, twilio.Number{
			Channel: twilio.WhatsApp, E164: stageTwilioWhatsApp, Name: "Acme Energy", InboundURL: public + "/webhooks/acme-wa#rc=3&rp=ct,rt,5xx",
		})
		for _, purpose := range conversations.NoticePurposes {
			text, label, link := body(purpose)
			account.Contents = append(account.Contents, twilio.Content{SID: stageContents[purpose], Body: text, ButtonLabel: label, ButtonURL: link})
		}
	}
	for channel, sender := range map[conversations.Channel]string{conversations.WhatsApp: "acme-wa", conversations.SMS: "acme-sms"} {
		if provider := map[conversations.Channel]string{conversations.WhatsApp: p.WhatsApp, conversations.SMS: p.SMS}[channel]; provider != "clickatell" {
			continue
		}
		hook := public + "/webhooks/" + sender + "/" + stageWebhookSecret
		in := clickatell.Integration{
			ID: "acme-" + string(channel), APIKey: stageClickatellKey + string(channel), InboundURL: hook, StatusURL: hook,
			Numbers: []clickatell.Number{{Channel: string(channel), E164: "+27600000004", Name: "Acme Energy"}},
		}
		if channel == conversations.WhatsApp {
			in.Numbers[0].E164 = "+27600000005"
			for _, purpose := range conversations.NoticePurposes {
				text, label, link := body(purpose)
				in.Templates = append(in.Templates, clickatell.Template{Name: "request_" + string(purpose), Body: text, ButtonLabel: label, ButtonURL: link})
			}
		}
		c.Clickatell.Integrations = append(c.Clickatell.Integrations, in)
	}
	c.Clickatell.SentAfter, c.Clickatell.DeliveredAfter = c.Meta.SentAfter, c.Meta.DeliveredAfter
}

// TestStoriesAtEachProvider plays stories of both channels at the providers
// that the others do not use.
func TestStoriesAtEachProvider(t *testing.T) {
	t.Parallel()
	for _, p := range []providersOfTheStage{{"twilio", "clickatell"}, {"clickatell", "twilio"}} {
		for _, name := range []string{"paid_*", "chat_*", "stop_by_whatsapp", "sent_again", "not_on_whatsapp", "phone_switched_off", "refunded_in_parts"} {
			stories := readStories(t, name)
			for i := range stories {
				stories[i].stage.Providers = &p
				stories[i].name = cmp.Or(p.WhatsApp, "meta") + "_" + p.SMS + "/" + stories[i].name
			}
			tellAll(t, stories, onRealRedis)
		}
	}
}
