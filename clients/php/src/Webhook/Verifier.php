<?php

declare(strict_types=1);

namespace Fdpush\Webhook;

use Fdpush\Exception\WebhookException;
use Fdpush\Internal\JsonObject;

/** Verifies and reads the requests that the server sends to a back end. */
final class Verifier
{
    /** @var list<string> */
    private readonly array $secrets;

    /**
     * @param string|list<string> $secrets   the secret `webhook_secret`; during a rotation, the old and the new secret
     * @param int                 $tolerance the maximum difference between the time of an event request and the current
     *                                       time, in seconds
     */
    public function __construct(#[\SensitiveParameter] string|array $secrets, private readonly int $tolerance = 300)
    {
        $this->secrets = array_values((array) $secrets);
        // Without a secret, anyone could compute the signature.
        if ($this->secrets === [] || in_array('', $this->secrets, true)) {
            throw new \InvalidArgumentException('the webhook secret is empty');
        }
    }

    /**
     * Verifies and reads a request with events.
     *
     * @param string      $body      the raw body, `file_get_contents('php://input')`
     * @param string|null $signature the header `X-Fdpush-Signature`, `$_SERVER['HTTP_X_FDPUSH_SIGNATURE'] ?? null`
     * @param int|null    $now       the current time in seconds since 1970; with null, the time of the clock
     *
     * @throws WebhookException the signature is invalid, the request is too old, or the body is malformed
     */
    public function events(string $body, ?string $signature, ?int $now = null): EventBatch
    {
        $batch = $this->read($body, $signature, EventBatch::read(...));
        $difference = abs($batch->sentMs - ($now ?? time()) * 1000);
        if ($difference > $this->tolerance * 1000) {
            $limit = "limit {$this->tolerance} s";
            throw new WebhookException("the time of the request differs from the current time by $difference ms ($limit)", 401);
        }
        return $batch;
    }

    /**
     * Verifies and reads a request of the connect hook. Such a request has no timestamp, because the request has no side effects.
     *
     * @throws WebhookException the signature is invalid, or the body is malformed
     */
    public function connect(string $body, ?string $signature): ConnectRequest
    {
        return $this->read($body, $signature, ConnectRequest::read(...));
    }

    /**
     * Verifies the signature of a body in constant time.
     *
     * @throws WebhookException the signature is invalid
     */
    public function verify(string $body, ?string $signature): void
    {
        $isValid = false;
        foreach ($this->secrets as $secret) {
            $expected = 'sha256=' . hash_hmac('sha256', $body, $secret);
            $isValid = hash_equals($expected, $signature ?? '') || $isValid;
        }
        if (!$isValid) {
            throw new WebhookException('the signature is missing or invalid', 401);
        }
    }

    /**
     * @template T
     * @param callable(JsonObject): T $read
     * @return T
     */
    private function read(string $body, ?string $signature, callable $read): mixed
    {
        $this->verify($body, $signature);
        try {
            return $read(JsonObject::parse($body));
        } catch (\UnexpectedValueException $error) {
            throw new WebhookException($error->getMessage(), 400, $error);
        }
    }
}
