-- Lists the latest 50 deployments of a place (a service in an environment), chosen at random.
local common = require("common")

request = function()
    local query = string.format("service=service-%d&environment=environment-%d&limit=50",
        math.random(0, common.services - 1), math.random(0, common.environments - 1))
    return wrk.format("GET", "/v1/deployments?" .. query)
end

setup, init, done = common.setup, common.init, common.done
