<?php

declare(strict_types=1);

namespace Fdpush\Internal;

use Fdpush\Exception\TransportException;
use Fdpush\Http\Response;
use Fdpush\Http\Transport;
use Fdpush\Result\PushError;
use Fdpush\Result\PushResult;

/**
 * One request of a batch. The request contains pushes with their keys, up to a maximum size.
 *
 * @internal
 * @template TKey
 */
final class BatchRequest
{
    /** The maximum size of a body with more than one push, in bytes. */
    private const BODY_BYTES_MAX = 256 << 10;

    /** @var list<TKey> */
    private array $keys = [];
    private string $body = '';

    public function __construct(private readonly int $pushesMax)
    {
        if ($pushesMax < 1) {
            throw new \InvalidArgumentException('the maximum number of pushes in a request must be at least 1');
        }
    }

    /** Returns whether this request has room for a push with this JSON. An empty request has room for any push. */
    public function hasRoom(string $json): bool
    {
        $bytes = strlen($this->body) + strlen($json) + 1;
        return $this->keys === [] || (count($this->keys) < $this->pushesMax && $bytes <= self::BODY_BYTES_MAX);
    }

    /** @param TKey $key */
    public function add(mixed $key, string $json): void
    {
        $this->keys[] = $key;
        $this->body .= $json . "\n";
    }

    /**
     * Sends the pushes, and yields the result of each push with the key of the push.
     *
     * @return \Generator<TKey, PushResult|PushError>
     */
    public function send(Transport $transport): \Generator
    {
        if ($this->keys === []) {
            return;
        }
        $failure = null;
        try {
            $response = $transport->send('POST', '/api/batch', $this->body, Transport::LINES);
        } catch (TransportException $failure) {
            $response = new Response(200, $failure->received);
        }
        if ($response->status !== 200) {
            throw Answer::error($response);
        }
        // The last element is the text after the last line end, which is empty or an incomplete answer.
        $lines = array_slice(explode("\n", $response->body), 0, -1);
        foreach (array_slice($this->keys, 0, count($lines)) as $index => $key) {
            yield $key => Answer::parse($lines[$index], self::result(...));
        }
        if ($failure !== null || count($lines) < count($this->keys)) {
            throw $failure ?? new TransportException(
                sprintf('the batch ended after %d of %d answers', count($lines), count($this->keys)),
            );
        }
    }

    private static function result(JsonObject $answer): PushResult|PushError
    {
        return isset($answer->members['error']) ? PushError::read($answer) : PushResult::read($answer);
    }
}
