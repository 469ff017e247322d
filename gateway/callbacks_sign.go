package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// The headers of the Standard Webhooks scheme
// (github.com/standard-webhooks/standard-webhooks, spec/standard-webhooks.md).
const (
	callbackIDHeader        = "webhook-id"
	callbackTimeHeader      = "webhook-timestamp"
	callbackSignatureHeader = "webhook-signature"
)

// signCallback signs a body for one try, once with each secret: whoever
// receives it needs one that fits.
func signCallback(header http.Header, secrets []string, id string, at time.Time, body []byte) error {
	stamp := strconv.FormatInt(at.Unix(), 10)
	var signatures []string
	for _, secret := range secrets {
		key, err := parseCallbackSecret(secret)
		if err != nil {
			return fmt.Errorf("a secret of the endpoint: %w", err)
		}
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(id + "." + stamp + ".")) // a hash takes everything
		mac.Write(body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if len(signatures) == 0 {
		return fmt.Errorf("the endpoint has no secret")
	}
	header.Set(callbackIDHeader, id)
	header.Set(callbackTimeHeader, stamp)
	header.Set(callbackSignatureHeader, strings.Join(signatures, " "))
	return nil
}
