<?php

declare(strict_types=1);

namespace Fdpush\Tests\Support;

/** A WebSocket client. Every read has a deadline. */
final class WebSocket
{
    public const TEXT = 1;
    public const BINARY = 2;
    public const CLOSE = 8;

    /** The fd in the `welcome` frame. */
    public readonly int $fd;

    /** @param resource $stream */
    private function __construct(private $stream)
    {
    }

    /** Connects and reads the `welcome` frame. */
    public static function open(string $address, string $target = '/'): self
    {
        $client = self::begin($address, $target);
        $status = $client->finish();
        if ($status !== 101) {
            throw new \RuntimeException("the upgrade was answered with $status");
        }
        return $client;
    }

    /** Connects and sends the upgrade request. */
    public static function begin(string $address, string $target = '/'): self
    {
        $stream = stream_socket_client("tcp://$address", $code, $message, Server::TIMEOUT);
        if ($stream === false) {
            throw new \RuntimeException("$address: $message");
        }
        stream_set_timeout($stream, Server::TIMEOUT);
        fwrite($stream, "GET $target HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            . "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n");
        return new self($stream);
    }

    /** Reads the answer to the upgrade request, and after 101 the `welcome` frame. Returns the status. */
    public function finish(): int
    {
        $status = (int) explode(' ', (string) fgets($this->stream))[1];
        while (!in_array(fgets($this->stream), ["\r\n", false], true)) {
            continue;
        }
        if ($status === 101) {
            $welcome = json_decode($this->next(), true, 512, JSON_THROW_ON_ERROR);
            $this->fd = $welcome['fd'];
        }
        return $status;
    }

    /** Returns the payload of the next text message. */
    public function next(): string
    {
        [$opcode, $payload] = $this->frame();
        return $opcode === self::TEXT ? $payload : throw new \RuntimeException("expected text, got opcode $opcode: $payload");
    }

    /** Returns the next text message that is not a notice of joins and leaves. */
    public function message(): string
    {
        do {
            $text = $this->next();
        } while (preg_match('/^\{"type":"(joined|left)"/', $text) === 1);
        return $text;
    }

    /**
     * Returns the opcode and the payload of the next frame that is not a ping.
     *
     * @return array{int, string}
     */
    public function frame(): array
    {
        do {
            $head = $this->read(2);
            $length = ord($head[1]);
            $length = match ($length) {
                126 => unpack('n', $this->read(2))[1],
                127 => unpack('J', $this->read(8))[1],
                default => $length,
            };
            $payload = $this->read($length);
            $opcode = ord($head[0]) & 0x0f;
        } while ($opcode === 9);
        return [$opcode, $payload];
    }

    /**
     * Skips messages, and returns the code and the reason of the close frame.
     *
     * @return array{int, string}
     */
    public function closed(): array
    {
        do {
            [$opcode, $payload] = $this->frame();
        } while ($opcode !== self::CLOSE);
        return [unpack('n', $payload)[1], substr($payload, 2)];
    }

    /** Waits until the server ends the TCP connection, and returns whether it sent no frame before. */
    public function isDropped(): bool
    {
        return stream_get_contents($this->stream) === '' && feof($this->stream);
    }

    private function read(int $length): string
    {
        $bytes = '';
        while (strlen($bytes) < $length) {
            $piece = fread($this->stream, $length - strlen($bytes));
            if ($piece === false || $piece === '') {
                throw new \RuntimeException('the connection ended, or the deadline has passed');
            }
            $bytes .= $piece;
        }
        return $bytes;
    }
}
