<?php

declare(strict_types=1);

namespace Fdpush\Internal;

use Fdpush\Exception\ApiException;
use Fdpush\Exception\TransportException;
use Fdpush\Http\Response;

/**
 * Reads the answers of the API.
 *
 * @internal
 */
final class Answer
{
    /** If an answer is not from fdpush, the error message contains at most this number of bytes of the answer. */
    private const TEXT_BYTES_MAX = 200;

    /**
     * Reads the JSON object of a response.
     *
     * @template T
     * @param callable(JsonObject): T $read
     * @return T
     */
    public static function read(Response $response, callable $read): mixed
    {
        if ($response->status !== 200) {
            throw self::error($response);
        }
        return self::parse($response->body, $read);
    }

    /**
     * Reads the JSON object in a text.
     *
     * @template T
     * @param callable(JsonObject): T $read
     * @return T
     */
    public static function parse(string $json, callable $read): mixed
    {
        try {
            return $read(JsonObject::parse($json));
        } catch (\UnexpectedValueException $error) {
            throw new TransportException('the answer is not from fdpush: ' . $error->getMessage(), $json, $error);
        }
    }

    public static function error(Response $response): ApiException
    {
        try {
            $answer = JsonObject::parse($response->body);
            $error = $answer->objectOrNull('error') ?? $answer;
            return new ApiException($response->status, $error->string('code'), $error->string('message'), $answer->id());
        } catch (\UnexpectedValueException) {
            $text = substr($response->body, 0, self::TEXT_BYTES_MAX);
            return new ApiException($response->status, '', "HTTP status {$response->status}: $text");
        }
    }
}
