<?php

declare(strict_types=1);

namespace Fdpush\Webhook;

use Fdpush\Internal\JsonObject;

/**
 * A request of the connect hook: the upgrade of a client.
 *
 * The back end answers 200 with a JSON object, such as `{"uid":"10010"}`, or a status from 400 to 499.
 */
final class ConnectRequest
{
    public function __construct(
        /** The name of the server. */
        public readonly string $node,
        public readonly int $fd,
        /** The remote address of the socket: `ADDRESS:PORT` or `unix`. */
        public readonly string $peer,
        /** The client's address, or null if `peer` is `unix`. */
        public readonly ?string $address,
        public readonly string $method,
        /** The request target, such as `/chat?room=7`, not decoded. */
        public readonly string $target,
        /** @var array<string, list<string>> the values of each header, whose name is in lower case */
        public readonly array $headers,
    ) {
    }

    /** Returns the value of a header, or null if the request has no value or several values of this header. */
    public function header(string $name): ?string
    {
        $values = $this->headers[strtolower($name)] ?? [];
        return count($values) === 1 ? $values[0] : null;
    }

    /** @internal */
    public static function read(JsonObject $body): self
    {
        $headers = self::headers($body, 'headers');
        // Header values that are not UTF-8 are in the member `headers_base64`, encoded as base64.
        foreach (self::headers($body, 'headers_base64') as $name => $values) {
            foreach ($values as $value) {
                $bytes = base64_decode($value, true);
                $headers[$name][] = $bytes !== false ? $bytes : throw new \UnexpectedValueException('a header is not base64');
            }
        }
        return new self(
            $body->string('node'),
            $body->int('fd'),
            $body->string('peer'),
            $body->stringOrNull('address'),
            $body->string('method'),
            $body->string('target'),
            $headers,
        );
    }

    /** @return array<string, list<string>> */
    private static function headers(JsonObject $body, string $member): array
    {
        $object = $body->objectOrNull($member);
        $headers = [];
        foreach (array_keys($object?->members ?? []) as $name) {
            $headers[(string) $name] = $object->strings((string) $name);
        }
        return $headers;
    }
}
