-- Records a deployment of an existing release in an existing place, both chosen at random.
local common = require("common")

wrk.headers["Content-Type"] = "application/json"

request = function()
    local body = string.format('{"service":"service-%d","environment":"environment-%d","version":"1.%d.0"}',
        math.random(0, common.services - 1), math.random(0, common.environments - 1), math.random(0, common.versions() - 1))
    return wrk.format("POST", os.getenv("BENCH_RECORD"), nil, body)
end

setup, init, done = common.setup, common.init, common.done
