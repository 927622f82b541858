-- Shared by the three kinds of requests: the rows that load.*.sql creates, the servers, the key, and the line of results.
local common = {
    services = 200,
    environments = 5,
    deployments = tonumber(os.getenv("DEPLOYMENTS")),
}

local ports, threads = {}, 0
for port in os.getenv("BENCH_PORTS"):gmatch("%d+") do
    table.insert(ports, port)
end

-- Gives each thread one of the servers, in turn.
function common.setup(thread)
    thread.addr = wrk.lookup("127.0.0.1", ports[threads % #ports + 1])[1]
    threads = threads + 1
end

function common.versions()
    return common.deployments / (common.services * common.environments)
end

-- As in load.*.sql: one deployment every 30 seconds from 2025-10-01 on, numbered from 1.
function common.deployment_id(number)
    local millis = 1759276800000 + number * 30000
    return string.format("%08x-%04x-7000-8000-%012x", math.floor(millis / 65536), millis % 65536, number)
end

function common.init()
    wrk.headers["Authorization"] = "Bearer " .. os.getenv("PROP_KEY")
    local address = tostring({}):gsub("^table: 0x", "")
    math.randomseed(os.time() + tonumber(address, 16) % 1000003)
end

-- Prints the number of requests, requests per second, p50 and p99 in milliseconds, and the number of failed requests.
function common.done(summary, latency)
    local errors = summary.errors
    local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
    print(string.format("RESULT %d %.0f %.2f %.2f %d", summary.requests, summary.requests / summary.duration * 1e6,
        latency:percentile(50) / 1000, latency:percentile(99) / 1000, failed))
end

return common
