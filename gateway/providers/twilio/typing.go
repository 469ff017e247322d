package twilio

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"

	"paythread/conversations"
)

var messageForm = regexp.MustCompile(`^(SM|MM)[0-9a-fA-F]{32}$`)

// MarkRead shows a customer on WhatsApp that an answer is being written, which
// marks their message as read as well. Twilio has no way to say that it was
// read and nothing more; without typing, and on SMS, nothing is done.
func (p *Provider) MarkRead(ctx context.Context, id string, typing bool) error {
	if p.channel != conversations.WhatsApp || !typing {
		return nil
	}
	if !messageForm.MatchString(id) {
		return errors.New("typing: the id is not that of a message at Twilio")
	}
	body, err := json.Marshal(map[string]string{"channel": "WHATSAPP", "messageId": id})
	if err != nil {
		return fmt.Errorf("typing: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.messagingURL+"/v3/Indicators/Typing.json", bytes.NewReader(body))
	if err != nil {
		return errors.New("typing: messaging_url makes no address")
	}
	req.Header.Set("Content-Type", "application/json")
	var answer struct {
		Success bool `json:"success"`
	}
	if err := p.do(req, p.user, p.password, &answer); err != nil {
		return fmt.Errorf("typing: %w", err)
	}
	if !answer.Success {
		return errors.New("typing: Twilio says that it did not succeed")
	}
	return nil
}
